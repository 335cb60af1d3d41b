-- Give back a step as if it had never been claimed: this version cannot read its record, or the worker was told to stop
-- before it began.
-- KEYS: export, queue, open, aside
-- ARGV: version, export id, job id, prefix, now (ms), wake channel, owner and until when (ms) only others are offered it;
--       without an owner anybody is
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
-- Nothing was begun: whoever has it next must not think that an earlier submit may have reached the platform.
if redis.call('HINCRBY', KEYS[1], 'claims', -1) < 1 then
  redis.call('HDEL', KEYS[1], 'claims')
end
local told = redis.call('HMGET', KEYS[1], 'phase', 'connection', 'refused')
if told[1] == 'queued' then
  redis.call('ZREM', ARGV[4] .. 'slots:' .. (told[2] or ''), ARGV[2])
end
if ARGV[7] == '' then
  redis.call('ZADD', KEYS[2], 'XX', ARGV[5], ARGV[3])
  redis.call('ZADD', KEYS[3], 'XX', ARGV[5], ARGV[2])
else
  local others = told[3] and told[3] ~= 'all' and told[3] or ''
  redis.call('ZREM', KEYS[2], ARGV[3])
  redis.call('ZADD', KEYS[4], ARGV[8], ARGV[3])
  redis.call('ZADD', KEYS[3], 'XX', ARGV[8] + 60000, ARGV[2])
  redis.call('HSET', KEYS[1], 'refused', others .. '|' .. ARGV[7] .. '|')
end
redis.call('PUBLISH', ARGV[6], '')
return 1
