-- Take due deliveries of one sink; they come back after the visibility timeout unless they are acknowledged.
-- KEYS: outbox, refusals; ARGV: now (ms), when they come back (ms), how many, prefix of the events' keys
-- Returns a list of {event id, event, 'failures:first' or ''}
local taken = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local event = redis.call('GET', ARGV[4] .. id)
  if event then
    redis.call('ZADD', KEYS[1], ARGV[2], id)
    taken[#taken + 1] = {id, event, redis.call('HGET', KEYS[2], id) or ''}
  else
    -- Its retention has passed while the sink was down: nothing is left to deliver.
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
return taken
