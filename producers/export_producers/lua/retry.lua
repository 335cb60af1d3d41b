-- Set an ended export going again; a worker decides from where, out of what the record still has.
-- KEYS: export, timeline, open, ended, old phase, new phase, queue:control, dedupe
-- ARGV: export id, expected step, new status, new phase, start, now (ms), creation (ms), job id, job payload, job TTL (ms),
--       wake channel
-- Returns 1, or 0 when the export has changed meanwhile
if redis.call('HGET', KEYS[1], 'step') ~= ARGV[2] or not redis.call('ZSCORE', KEYS[4], ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'phase', ARGV[4], 'retry', ARGV[5])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[8]}) do
  redis.call('PERSIST', key)
end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZADD', KEYS[6], ARGV[7], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[1])
redis.call('SET', 'arq:job:' .. ARGV[8], ARGV[9], 'PX', ARGV[10])
redis.call('ZADD', KEYS[7], ARGV[6], ARGV[8])
redis.call('PUBLISH', ARGV[11], '')
return 1
