-- Give back a step that this version cannot read, as if it had never been claimed, for others to look at.
-- KEYS: export, queue, open; ARGV: version, when to look again (ms), export id, job id, prefix
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
-- Nothing was begun: whoever can read it must not think that an earlier submit may have reached the platform.
if redis.call('HINCRBY', KEYS[1], 'claims', -1) < 1 then
  redis.call('HDEL', KEYS[1], 'claims')
end
local told = redis.call('HMGET', KEYS[1], 'phase', 'connection')
if told[1] == 'queued' then
  redis.call('ZREM', ARGV[5] .. 'slots:' .. (told[2] or ''), ARGV[3])
end
redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[3], 'XX', ARGV[2], ARGV[3])
return 1
