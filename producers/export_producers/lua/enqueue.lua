-- Accepts an export: writes its record, indexes, timeline and first queue entry, or nothing at all.
--
-- KEYS: export, timeline, open, created, index of the phase queued, queue, arq job, connections, dedupe (only with an
--       idempotency key)
-- ARGV[1]: JSON object
--   export_id, now_ms, prefix, wake (channel)
--   request, status      JSON texts
--   connection, platform, kind
--   fingerprint          of the request; compared when the idempotency key is known already
--   trace                the trace context (JSON text; missing: none)
--   note                 the first entry of the timeline (JSON text)
--   job_id, payload, payload_ttl_ms
-- Answer: JSON object {verdict, export_id, phase, platform}
--   accepted             also for a repeated call, whose first answer was lost
--   duplicate            the key was used with the same request; export_id and phase are those of its export
--   conflict             the key was used with another request, whose export is export_id
--   wrong_connection     no worker has announced the connection, or its platform is another one (platform)
local args = cjson.decode(ARGV[1])
local export, timeline, open, created, phase_index, queue, job, connections, dedupe = unpack(KEYS)

local function answer(verdict, export_id, phase)
  return cjson.encode({verdict = verdict, export_id = export_id, phase = phase})
end

local accepted_phase = redis.call('HGET', export, 'phase')
if accepted_phase then
  return answer('accepted', args.export_id, accepted_phase)
end
if dedupe then
  local known = redis.call('HMGET', dedupe, 'export_id', 'fingerprint')
  local phase = known[1] and redis.call('HGET', args.prefix .. 'export:' .. known[1], 'phase')
  -- A key whose export has expired may be used again.
  if phase then
    return answer(known[2] == args.fingerprint and 'duplicate' or 'conflict', known[1], phase)
  end
end
-- Workers announce their connections. Before the first one has, every connection is accepted.
local platform = redis.call('HGET', connections, args.connection)
if platform ~= args.platform and redis.call('EXISTS', connections) == 1 then
  return cjson.encode({verdict = 'wrong_connection', platform = platform or nil})
end
if dedupe then
  redis.call('HSET', dedupe, 'export_id', args.export_id, 'fingerprint', args.fingerprint)
end
redis.call('HSET', export, 'request', args.request, 'status', args.status, 'connection', args.connection,
  'kind', args.kind, 'phase', 'queued', 'version', 0, 'step', 0)
if args.trace then
  redis.call('HSET', export, 'trace', args.trace)
end
redis.call('RPUSH', timeline, args.note)
for _, index in ipairs({open, created, phase_index}) do
  redis.call('ZADD', index, args.now_ms, args.export_id)
end
redis.call('SET', job, args.payload, 'PX', args.payload_ttl_ms)
redis.call('ZADD', queue, args.now_ms, args.job_id)
redis.call('PUBLISH', args.wake, '')
return answer('accepted', args.export_id, 'queued')
