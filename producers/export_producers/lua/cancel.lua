-- Requests the cancellation of an export. A worker that holds its step learns of the request with its next renewal of
-- the lease, within seconds. If no worker holds it, the export is due at once.
--
-- KEYS: export, open, control queue, transfer queue
-- ARGV[1]: JSON object
--   export_id, now_ms, prefix
-- Answer: JSON object {verdict, phase}
--   requested            phase is the export's phase now
--   ended                the export is in the terminal phase `phase`; nothing was changed
--   not_found            there is no such export
local args = cjson.decode(ARGV[1])
local export, open, control_queue, transfer_queue = unpack(KEYS)

local record = redis.call('HMGET', export, 'phase', 'step', 'claims', 'connection', 'released', 'kind')
local phase, step, claims, connection, released, kind = unpack(record)
phase = phase or phase_of_export(args.prefix, args.export_id)
if not phase then
  return cjson.encode({verdict = 'not_found'})
end
if phase == 'succeeded' or phase == 'failed' or phase == 'cancelled' then
  return cjson.encode({verdict = 'ended', phase = phase})
end
redis.call('HSET', export, 'cancel', args.now_ms)
add_change(args.prefix, args.export_id, connection, kind, phase, phase)
-- A worker that stops still holds its step until its lease ends (`ending`), and may write to S3 until then.
local is_held = claims and (not released or released == 'ending')
if not is_held then
  local job = args.prefix .. args.export_id .. ':' .. step
  local role = phase == 'transferring' and 'transfer' or 'control'
  for _, row in ipairs({'parked:' .. connection, 'waiting:' .. connection, 'aside:' .. role}) do
    redis.call('ZREM', args.prefix .. row, job)
  end
  redis.call('ZADD', role == 'control' and control_queue or transfer_queue, args.now_ms, job)
  redis.call('ZADD', open, 'XX', args.now_ms, args.export_id)
  redis.call('PUBLISH', args.prefix .. 'wake:' .. role, '')
end
return cjson.encode({verdict = 'requested', phase = phase})
