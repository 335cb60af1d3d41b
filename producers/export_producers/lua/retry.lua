-- Restarts an ended export. A worker then decides from where, according to what the record still has. `indexes.lua` of
-- the worker is loaded before this file.
--
-- KEYS: export, timeline, open, control queue, dedupe, arq job
-- ARGV[1]: JSON object
--   export_id, now_ms, prefix, wake (channel)
--   step                 that the caller has read (string)
--   status, phase        the new status (JSON text), and its phase
--   connection, kind, old_phase
--   start                submit, poll or transfer
--   job_id, payload, payload_ttl_ms
--   message_ttl_ms       how long the identity of a message is kept while its export is open
-- Answer: restarted, or changed when the export has changed since the caller has read it; then nothing was changed.
local args = cjson.decode(ARGV[1])
local export, timeline, open, queue, dedupe, job = unpack(KEYS)

local record = redis.call('HMGET', export, 'connection', 'kind', 'requested_by', 'phase', 'step')
if record[5] ~= args.step or record[4] ~= args.old_phase then
  return 'changed'
end
local number = number_of_old(args.prefix, args.export_id, record)
redis.call('ZREM', args.prefix .. 'ended', args.export_id)
redis.call('HSET', export, 'status', args.status, 'phase', args.phase, 'retry', args.start)
local message = redis.call('HGET', export, 'message') or nil
-- With an identity of its own, the export has no idempotency key of the common ones: that may be of another export.
for _, key in ipairs({export, timeline, not message and dedupe or nil}) do
  redis.call('PERSIST', key)
end
if message then
  redis.call('PEXPIRE', message, args.message_ttl_ms)
end
move_export(args.prefix, number, args.phase, nil)
add_change(args.prefix, args.export_id, args.connection, args.kind, args.phase, args.old_phase)
redis.call('ZADD', open, args.now_ms, args.export_id)
redis.call('SET', job, args.payload, 'PX', args.payload_ttl_ms)
redis.call('ZADD', queue, args.now_ms, args.job_id)
redis.call('PUBLISH', args.wake, '')
return 'restarted'
