-- Keep a lease that is still ours.
-- KEYS: lease, open, export; ARGV: owner, lease (ms), when it ends (ms), export id, progress (JSON or '')
-- Returns 1, or 0 when the lease has gone
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], 'XX', ARGV[3], ARGV[4])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[3], 'progress', ARGV[5])
end
return 1
