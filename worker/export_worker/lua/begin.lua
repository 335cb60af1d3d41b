-- Begin one step: take the lease, if the step is still the export's next one.
-- KEYS: export, lease, open
-- ARGV: step, owner, lease (ms), when the lease ends (ms), export id
-- Returns {'ok', version, request, status, state} or {why not}
local step = redis.call('HGET', KEYS[1], 'step')
if not step then
  return {'gone'}
end
if step ~= ARGV[1] then
  return {'stale'}
end
if not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then
  return {'held'}
end
-- Somebody must look again when the lease ends without a word.
redis.call('ZADD', KEYS[3], 'XX', ARGV[4], ARGV[5])
local record = redis.call('HMGET', KEYS[1], 'version', 'request', 'status', 'state')
return {'ok', record[1], record[2], record[3], record[4] or ''}
