-- Give a step back without a decision: the worker stops, and somebody else shall go on at once.
-- KEYS: export, queue, open; ARGV: version, now (ms), export id, job id, wake channel
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
-- Its claims still count: what it began may have reached the platform.
redis.call('HSET', KEYS[1], 'released', '1')
redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[3], 'XX', ARGV[2], ARGV[3])
redis.call('PUBLISH', ARGV[5], '')
return 1
