-- Control steps: they ask a connection's platform, as far as its limits allow. What must wait is put off until its
-- connection may be called again, or parked until the connection has a free slot.

local ahead = {}

-- Milliseconds until the connection's rate has room for a call; 0 lets this call through and counts it.
local function wait_for_rate(connection, interval)
  local key = c.prefix .. 'rate:' .. connection
  local free_at = math.max(now, tonumber(redis.call('GET', key) or '0'))
  -- One second's worth may come at once.
  if free_at - now > 1000 then
    -- Each of those who wait comes back when it may be its turn, not all of them at once.
    local wait = free_at - now - 1000 + (ahead[connection] or 0) * interval
    ahead[connection] = (ahead[connection] or 0) + 1
    return wait
  end
  redis.call('SET', key, string.format('%.3f', free_at + interval), 'PX', int(free_at + interval - now + 1000))
  return 0
end

-- True when the export may go on; it holds one of its connection's slots then.
local function has_slot(connection, slots, id)
  local key = c.prefix .. 'slots:' .. connection
  if not redis.call('ZSCORE', key, id) then
    if redis.call('ZCARD', key) >= slots then
      return false
    end
    redis.call('ZADD', key, int(now), id)
  end
  return true
end

-- Its place in the row is since when it waits, however often it was looked at in vain.
local function park(export, ends)
  local since = redis.call('ZSCORE', KEYS[1], export.job) or int(now)
  redis.call('ZADD', c.prefix .. 'parked:' .. export.connection, since, export.job)
  keep_out(export.job, export.id, ends)
end

local function look(job)
  local export = asking(job)
  if not export then
    return
  end
  local limit, ends = export.limit, export.ends
  local breaker = c.prefix .. 'breaker:' .. export.connection
  local wait, probe = wait_for_breaker(breaker)
  if wait > 0 then
    -- Whoever has been the probe in vain comes behind the others: it may be the only one that fails.
    wait = wait + tonumber(redis.call('HGET', breaker, 'vain:' .. export.id) or '0')
  end
  if wait == 0 and export.phase == 'queued' and not has_slot(export.connection, limit.slots, export.id) then
    park(export, ends)
    return
  end
  if wait == 0 then
    wait = wait_for_rate(export.connection, limit.interval)
  end
  if wait > 0 then
    put_off(job, export.id, math.min(now + wait, ends))
    return
  end
  if probe then
    mark_probe(breaker)
  end
  take(export, probe)
end

if c.max > 0 then
  each_aside(look)
  each_due(function() return c.max - #taken end, look)
end
return answer()
