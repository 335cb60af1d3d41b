-- Keep a step that is still ours.
-- KEYS: export, queue, open; ARGV: version, when the lease ends (ms), export id, job id, progress (JSON or '')
-- Returns 0 when it has gone, 2 when somebody asked for the export's end, else 1
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[3], 'XX', ARGV[2], ARGV[3])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'progress', ARGV[5])
end
return redis.call('HEXISTS', KEYS[1], 'cancel') + 1
