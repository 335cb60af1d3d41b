-- Counts one request to a connection's platform if the connection's rate has room for it. A claim counts the first
-- request of a control step in the same way, under the same key.
--
-- KEYS: rate
-- ARGV[1]: JSON object
--   now_ms
--   interval_ms          between two requests
-- Answer: JSON object {wait_ms}; 0 when the request was counted, else how long to wait before the next try.
local args = cjson.decode(ARGV[1])
local rate = KEYS[1]

local free_at = math.max(args.now_ms, tonumber(redis.call('GET', rate) or '0'))
-- A burst of one second's requests is allowed.
if free_at - args.now_ms > 1000 then
  return cjson.encode({wait_ms = math.ceil(free_at - args.now_ms - 1000)})
end
free_at = free_at + args.interval_ms
local ttl_ms = string.format('%.0f', free_at - args.now_ms + 1000)
redis.call('SET', rate, string.format('%.3f', free_at), 'PX', ttl_ms)
return cjson.encode({wait_ms = 0})
