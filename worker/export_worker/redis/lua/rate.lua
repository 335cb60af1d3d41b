-- Count one request to a connection's platform, if its rate has room for it. A claim counts the first request of a
-- control step in the same way, under the same key.
-- KEYS: rate; ARGV: now (ms), between two requests (ms)
-- Returns 0 when it was counted, else after how many ms to ask again
local now, interval = tonumber(ARGV[1]), tonumber(ARGV[2])
local free_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
-- One second's worth may come at once.
if free_at - now > 1000 then
  return math.ceil(free_at - now - 1000)
end
free_at = free_at + interval
redis.call('SET', KEYS[1], string.format('%.3f', free_at), 'PX', string.format('%.0f', free_at - now + 1000))
return 0
