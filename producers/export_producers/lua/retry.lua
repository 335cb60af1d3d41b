-- Restarts an ended export. A worker then decides from where, according to what the record still has. `indexes.lua` of
-- the worker is loaded before this file.
--
-- KEYS: export, timeline, open, control queue, dedupe, restarted
-- ARGV[1]: JSON object
--   export_id, now_ms, prefix, wake (channel)
--   step                 that the caller has read (string)
--   status, phase        the new status (JSON text), and its phase
--   connection, kind, old_phase
--   start                submit, poll or transfer
--   job_id
--   message_ttl_ms       how long the identity of a message is kept while its export is open
--   event_id, until_ms   of the end before the retry, and when it expires (missing: the record is not packed)
--   answer               what a repeated call gets (missing: the call has no condition), for answer_ttl_ms
--   fields               how many of ARGV[3] and the following are names and values of the record's fields
-- ARGV[2]: the header of the packed record that the caller has read. Then names and values, and entries of the timeline
-- Answer: restarted, or changed when the export has changed since the caller has read it; then nothing was changed.
local args = cjson.decode(ARGV[1])
local export, timeline, open, queue, dedupe, restarted = unpack(KEYS)

-- Writes the hash and the timeline of a packed record, whose last end is kept for its event. Returns whether it is still
-- the record that the caller has read.
local function unpack_record()
  local _, value = read_past(args.prefix, args.export_id)
  local given = ARGV
  local header, first_entry = given[2], 3 + args.fields
  if string.sub(value or '', 1, #header) ~= header then
    return false
  end
  redis.call('HSET', export, unpack(given, 3, first_entry - 1))
  for position = first_entry, #given do
    redis.call('RPUSH', timeline, given[position])
  end
  local kept_ms = math.max(1, args.until_ms - args.now_ms)
  redis.call('SET', args.prefix .. 'event:' .. args.event_id, value, 'PX', string.format('%.0f', kept_ms))
  redis.call('DEL', args.prefix .. 'past:' .. args.export_id)
  return true
end

local function is_unchanged()
  if args.event_id then
    return unpack_record()
  end
  local record = redis.call('HMGET', export, 'step', 'phase')
  return record[1] == args.step and record[2] == args.old_phase
end

if not is_unchanged() then
  return 'changed'
end
local record = redis.call('HMGET', export, 'connection', 'kind', 'requested_by')
record[4] = args.old_phase
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
rejoin_batch(args.prefix, message, number, args.old_phase)
move_export(args.prefix, number, args.phase, nil)
add_change(args.prefix, args.export_id, args.connection, args.kind, args.phase, args.old_phase)
redis.call('ZADD', open, args.now_ms, args.export_id)
redis.call('ZADD', queue, args.now_ms, args.job_id)
if args.answer then
  redis.call('SET', restarted, args.answer, 'PX', args.answer_ttl_ms)
end
redis.call('PUBLISH', args.wake, '')
return 'restarted'
