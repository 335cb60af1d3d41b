-- Accept an export: record, indexes, timeline and first queue entry, or nothing at all.
-- KEYS: export, timeline, open, created, phase:queued, queue, job, connections, [dedupe]
-- ARGV: export id, request, status, now (ms), job id, job payload, job TTL (ms), timeline entry, fingerprint,
--       connection, platform, kind, wake channel, prefix, trace context (JSON or '')
-- Returns {'accepted'|'duplicate'|'conflict'|'connection', export id or known platform, phase}
local id = ARGV[1]
-- A retried call whose first answer was lost: it has been accepted already.
local phase = redis.call('HGET', KEYS[1], 'phase')
if phase then
  return {'accepted', id, phase}
end
if KEYS[9] then
  local known = redis.call('HMGET', KEYS[9], 'export_id', 'fingerprint')
  phase = known[1] and redis.call('HGET', ARGV[14] .. 'export:' .. known[1], 'phase')
  -- A key whose export is gone stands for nothing any more.
  if phase then
    return {known[2] == ARGV[9] and 'duplicate' or 'conflict', known[1], phase}
  end
end
-- Workers announce their connections; as long as none has, whatever is asked for may still come.
if redis.call('EXISTS', KEYS[8]) == 1 then
  local platform = redis.call('HGET', KEYS[8], ARGV[10])
  if platform ~= ARGV[11] then
    return {'connection', platform or '', ''}
  end
end
if KEYS[9] then
  redis.call('HSET', KEYS[9], 'export_id', id, 'fingerprint', ARGV[9])
end
redis.call('HSET', KEYS[1], 'request', ARGV[2], 'status', ARGV[3], 'connection', ARGV[10], 'kind', ARGV[12],
  'phase', 'queued', 'version', 0, 'step', 0)
if ARGV[15] ~= '' then
  redis.call('HSET', KEYS[1], 'trace', ARGV[15])
end
redis.call('RPUSH', KEYS[2], ARGV[8])
redis.call('ZADD', KEYS[3], ARGV[4], id)
redis.call('ZADD', KEYS[4], ARGV[4], id)
redis.call('ZADD', KEYS[5], ARGV[4], id)
redis.call('SET', KEYS[7], ARGV[6], 'PX', ARGV[7])
redis.call('ZADD', KEYS[6], ARGV[4], ARGV[5])
redis.call('PUBLISH', ARGV[13], '')
return {'accepted', id, 'queued'}
