-- The end of an export. `commit.lua` describes keys, argument and answer.

-- Ends the export: a packed record replaces its keys, its event is added to every outbox, and its keys expire. The sweep
-- clears the indexes. Returns the record.
local function end_export()
  local digest = args.shares and redis.call('HGET', export, 'share')
  if digest then
    leave_sharing(args.prefix, args.export_id, digest, args.now_ms, args.shares == 'next')
  end
  redis.call('ZREM', open, args.export_id)
  log_end(args.prefix, number, args.now_ms, args.generation)
  count_end(args.prefix, args.connection, args.now_ms, args.counted)
  for _, outbox in ipairs(outboxes) do
    local is_taken = args.take and args.take.outboxes[outbox]
    redis.call('ZADD', outbox, is_taken and args.take.until_ms or args.now_ms, args.event_id)
    -- Its events have expired by then. A sink that was removed from the configuration never empties its outbox.
    redis.call('PEXPIRE', outbox, args.retention_ms)
  end
  local identity = redis.call('HGET', export, 'message') or nil
  local record_of_end = write_past(args.prefix, args.export_id, {
    phase = args.phase, generation = args.generation, step = args.step, number = number, saved = args.version,
    until_ms = args.now_ms + args.retention_ms, connection = args.connection, kind = args.kind,
    requested_by = record[6], error = args.error, identity = identity and string.sub(identity, #args.prefix + 1),
  }, ARGV[2], args.retention_ms)
  -- With an identity of its own, the export has no idempotency key of the common ones: that may be of another export.
  redis.call('PEXPIRE', identity or dedupe, args.retention_ms)
  leave_batch(args.prefix, identity, number, args.phase, args.now_ms)
  return record_of_end
end

local event = end_export()
return args.take and event or 'saved'
