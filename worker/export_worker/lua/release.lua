-- Give a lease back without a decision: the worker stops, and somebody else shall go on at once.
-- KEYS: lease, open; ARGV: owner, now (ms), export id
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[3])
  return 1
end
return 0
