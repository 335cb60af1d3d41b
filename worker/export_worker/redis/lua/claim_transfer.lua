-- Claims transfers; `claim.lua` before it describes keys, argument and answer.
--
-- Connections take turns, so that a connection with thousands of files does not delay the others. Each due entry moves
-- once from the queue into the row of its connection (`waiting:CONNECTION`). The connections that have a row are in a
-- ring; the connection that was served moves to the end of the ring.
--
-- Of one connection, a worker runs at most `connection_max` transfers, so that slow ones cannot use all of its slots.
--
-- A transfer that failed, and that waits until the transfers of its connection may be tried again, stays in the queue. A
-- connection whose store this worker cannot use is skipped by this worker only.

-- How often a transfer that was begun goes first. After that it waits in the row: it may kill every worker that runs it.
local priority_claims_max = 5
-- Entries that one round moves from the queue into the rows.
local sorted_at_once = 200

local function row_name(connection)
  return 'waiting:' .. connection
end

local function move_to_end_of_ring(connection)
  local last = redis.call('ZRANGE', ring, -1, -1, 'WITHSCORES')
  redis.call('ZADD', ring, int(tonumber(last[2] or '0') + 1), connection)
end

local function move_to_row(job)
  local export = limited_export(job)
  if not export then
    return
  end
  local wait, trial = kind_pause_of(export)
  if wait > 0 then
    postpone(job, export.id, math.min(now + wait, export.deadline))
    return
  end
  if trial then
    start_probe(kind_breaker(export))
  end
  -- A transfer that was begun goes first: it has an upload to resume, and its download link may expire.
  local begun = export.claims and tonumber(export.claims) <= priority_claims_max
  local since = begun and '0' or redis.call('ZSCORE', queue, job) or int(now)
  wait_in_row(row_name(export.connection), since, export, begun and turn_classes.begun)
  if not redis.call('ZSCORE', ring, export.connection) then
    move_to_end_of_ring(export.connection)
  end
end

-- By the name of a closed store: how many transfers for it this run of the script has claimed.
local admitted = {}

local function closed_store(connection)
  return args.closed_stores and args.closed_stores[connection]
end

local function may_use_store(connection)
  local store = closed_store(connection)
  return not store or (admitted[store.name] or 0) < store.admits
end

local function count_admitted(connection)
  local store = closed_store(connection)
  if store then
    admitted[store.name] = (admitted[store.name] or 0) + 1
  end
end

-- Claims the first transfer of a connection's row. Returns false when the row is empty, or the connection has all the
-- slots of this worker that it may have.
local function serve(connection)
  local running = args.running[connection] or 0
  if running >= args.connection_max then
    return false
  end
  local first = take_turn(args.prefix, row_name(connection))
  if not first then
    redis.call('ZREM', ring, connection)
    return false
  end
  each({first}, function(job)
    -- An entry that is in the queue as well was enqueued again meanwhile, and a worker may hold it.
    local export = not redis.call('ZSCORE', queue, job) and read(job)
    if export then
      kind_pause_of(export) -- only for `spared`: the transfer may have waited in the row for a long time
      claim(export, false)
      args.running[connection] = running + 1
      count_admitted(connection)
    end
  end)
  move_to_end_of_ring(connection)
  return true
end

-- Removes a connection that this worker does not know from the ring once its row is empty.
local function drop_if_empty(connection)
  if redis.call('EXISTS', args.prefix .. row_name(connection)) == 0 then
    redis.call('ZREM', ring, connection)
  end
end

-- Serves each connection of the ring once. Returns whether any had a transfer.
local function serve_ring()
  local served = false
  for _, connection in ipairs(redis.call('ZRANGE', ring, 0, -1)) do
    if not args.limits[connection] then
      drop_if_empty(connection)
    elseif taken < args.max and may_use_store(connection) and serve(connection) then
      served = true
    end
  end
  return served
end

claim_expired()
if args.max > 0 then
  each_offered(move_to_row)
end
-- Also without a free slot: exports past their deadline are found, and the others wait in the rows of their connections.
each_due(function() return sorted_at_once end, move_to_row)
while taken < args.max and serve_ring() do end
return answer()
