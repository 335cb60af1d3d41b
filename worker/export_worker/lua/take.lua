-- Take due deliveries of one sink; they come back after the visibility timeout unless they are acknowledged.
-- KEYS: outbox; ARGV: now (ms), when they come back (ms), how many
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
  redis.call('ZADD', KEYS[1], ARGV[2], id)
end
return due
