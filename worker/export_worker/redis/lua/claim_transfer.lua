-- Transfers: whoever has room takes the next, of each connection in turn, so that one with thousands of files keeps
-- nobody else waiting. Due entries leave the queue for the row of their connection, each once; the connections that have
-- a row stand in a ring, and whichever was served goes to its end.
--
-- A connection whose files cannot be fetched or stored for now (its platform's download host, or S3, is down) is passed
-- over until its breaker lets one through.

local ring = c.prefix .. 'ring'
-- How often a transfer goes first because it was begun: one that kills every worker must let others by.
local first_turns = 5

local function row_of(connection)
  return c.prefix .. 'waiting:' .. connection
end

local function to_the_end(connection)
  local last = redis.call('ZRANGE', ring, -1, -1, 'WITHSCORES')
  redis.call('ZADD', ring, int(tonumber(last[2] or '0') + 1), connection)
end

local function sort_in(job)
  local export = asking(job)
  if not export then
    return
  end
  -- What was begun goes first: it has an upload to go on with, and a link that ends.
  local begun = export.claims and tonumber(export.claims) <= first_turns
  local since = begun and '0' or redis.call('ZSCORE', KEYS[1], job) or int(now)
  redis.call('ZADD', row_of(export.connection), since, job)
  keep_out(job, export.id, export.ends)
  if not redis.call('ZSCORE', ring, export.connection) then
    to_the_end(export.connection)
  end
end

-- Take the first of a connection's row; returns whether there was anything to be done.
local function serve(connection)
  local row = row_of(connection)
  local breaker = c.prefix .. 'breaker:' .. connection .. ':transfer'
  local wait, probe = wait_for_breaker(breaker)
  if wait > 0 then
    not_before(now + wait)
    return false
  end
  local first = redis.call('ZPOPMIN', row)
  if not first[1] then
    redis.call('ZREM', ring, connection)
    return false
  end
  each({first[1]}, function(job)
    -- One that stands in the queue, too, was brought back meanwhile, and somebody may hold it.
    local export = not redis.call('ZSCORE', KEYS[1], job) and read(job)
    if export then
      if probe then
        mark_probe(breaker)
      end
      take(export, probe)
    end
  end)
  to_the_end(connection)
  return true
end

if c.max > 0 then
  each_aside(sort_in)
  each_due(function() return #taken < c.max and 200 or 0 end, sort_in)
  local served = true
  while served and #taken < c.max do
    served = false
    for _, connection in ipairs(redis.call('ZRANGE', ring, 0, -1)) do
      if not c.limits[connection] then
        -- Its last worker may have gone; what stood in its row has been set aside.
        if redis.call('EXISTS', row_of(connection)) == 0 then
          redis.call('ZREM', ring, connection)
        end
      elseif #taken < c.max and serve(connection) then
        served = true
      end
    end
  end
end
return answer()
