-- Bring back one overdue export: nobody holds it, and its queue entry is lost or hangs at a dead worker.
-- The new entry has a new step number, so the old one, should it turn up again, is stale and does nothing.
-- KEYS: export, lease, open, timeline, queue, old job, old job in progress, old job's tries, new job
-- ARGV: export id, step, now (ms), old job id, new job id, new job payload, job TTL (ms), timeline entry, look again (ms)
-- Returns 1 when it was brought back
if redis.call('HGET', KEYS[1], 'step') ~= ARGV[2] then
  return 0
end
local waits = redis.call('ZSCORE', KEYS[5], ARGV[4])
  and redis.call('EXISTS', KEYS[6]) == 1 and redis.call('EXISTS', KEYS[7]) == 0
if redis.call('EXISTS', KEYS[2]) == 1 or waits then
  redis.call('ZADD', KEYS[3], 'XX', ARGV[9], ARGV[1])
  return 0
end
redis.call('ZREM', KEYS[5], ARGV[4])
redis.call('DEL', KEYS[6], KEYS[7], KEYS[8])
redis.call('HINCRBY', KEYS[1], 'step', 1)
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('RPUSH', KEYS[4], ARGV[8])
redis.call('SET', KEYS[9], ARGV[6], 'PX', ARGV[7])
redis.call('ZADD', KEYS[5], ARGV[3], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[9], ARGV[1])
return 1
