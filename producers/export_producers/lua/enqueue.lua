-- Accepts an export: writes its record, indexes, timeline and first queue entry, or nothing at all. `indexes.lua` and
-- `sharing.lua` of the worker are loaded before this file.
--
-- KEYS: export, open, queue, connections, identity (dedupe of an idempotency key, or message; only with one of them),
--       dedupe that version 0.1 gave the message (only with one)
-- ARGV[1]: JSON object
--   export_id, now_ms, prefix, wake (channel)
--   request, status      JSON texts
--   connection, platform, kind, requested_by
--   priority             of the request: high or low (missing: normal)
--   metadata             name -> value (missing: none)
--   fingerprint          of the request; compared when the idempotency key or the message is known already
--   published_ms         when the broker stored the message (missing: unknown)
--   is_owned             true if the identity is an idempotency key of a caller with a name (missing: it is not)
--   message_ttl_ms       how long the identity of a message or of such a caller is kept while its export is open
--   share                what open exports have in common if they share one operation (missing: it shares none)
--   trace                the trace context (JSON text; missing: none)
--   job_id
--   batch, seed, position
--                        the key of the export's batch, the text that all ids of its exports are made of, and the place
--                        of the export in it, from 0 (missing: the export is in no batch)
-- Answer: JSON object {verdict, export_id, phase, platform}
--   accepted             also for a repeated call, whose first answer was lost
--   duplicate            the identity was used with the same request; export_id and phase are those of its export
--   conflict             the identity was used with another request, whose export is export_id
--   wrong_connection     no worker has announced the connection, or its platform is another one (platform)
--   batch_lost           the batch is not there any more, or is another one
--   batch_stopped        the batch was cancelled
--   batch_expired        the export was accepted before, and its record has expired
--   batch_gap            the export before this one was not accepted
local args = cjson.decode(ARGV[1])
local export, open, queue, connections, identity, earlier = unpack(KEYS)

local function answer(verdict, export_id, phase)
  return cjson.encode({verdict = verdict, export_id = export_id, phase = phase})
end

local accepted_phase = phase_of_export(args.prefix, args.export_id)
if accepted_phase then
  return answer('accepted', args.export_id, accepted_phase)
end

-- How far the clock of a broker, or of its publisher, may be ahead of the clock of Redis.
local clock_skew_ms = 5000

-- Returns whether an export was accepted before the message was published, so that it is the export of another one.
local function is_older_than_message(export_id)
  local number = number_of(args.prefix, export_id)
  local accepted_ms = number and created_of(args.prefix, number)
    or tonumber(redis.call('ZSCORE', args.prefix .. 'created', export_id) or '0')
  return args.published_ms ~= nil and accepted_ms + clock_skew_ms < args.published_ms
end

-- Returns the answer if the identity belongs to an export. An identity whose export has expired may be used again.
local function known_answer(key, by_version_0_1)
  local known = redis.call('HMGET', key, 'export_id', 'fingerprint', 'named_by')
  local phase = known[1] and phase_of_export(args.prefix, known[1])
  -- Version 0.1 kept the identity of a message as an idempotency key, without `named_by`. Its numbers of messages did
  -- not say when a message was published.
  if not phase or (by_version_0_1 and (known[3] or is_older_than_message(known[1]))) then
    return nil
  end
  return answer(known[2] == args.fingerprint and 'duplicate' or 'conflict', known[1], phase)
end

-- Returns why the export cannot be the next one of its batch; nil if it can.
local function batch_refusal()
  local found = redis.call('HMGET', args.batch, 'seed', 'stop', 'accepted')
  if found[1] ~= args.seed then
    return 'batch_lost'
  elseif found[2] then
    return 'batch_stopped'
  end
  local accepted = tonumber(found[3])
  return args.position < accepted and 'batch_expired' or args.position > accepted and 'batch_gap' or nil
end

local refusal = args.batch and batch_refusal()
if refusal then
  return cjson.encode({verdict = refusal})
end
local known = identity and known_answer(identity, false) or earlier and known_answer(earlier, true)
if known then
  return known
end
-- Workers announce their connections. Before the first one has, every connection is accepted.
local platform = redis.call('HGET', connections, args.connection)
if platform ~= args.platform and redis.call('EXISTS', connections) == 1 then
  return cjson.encode({verdict = 'wrong_connection', platform = platform or nil})
end
if identity then
  redis.call('HSET', identity, 'export_id', args.export_id, 'fingerprint', args.fingerprint, 'named_by',
    earlier and 'message' or 'request')
  redis.call('PERSIST', identity)
end
local number = add_export(args.prefix, args.export_id, args.now_ms, {
  connection = args.connection, kind = args.kind, requested_by = args.requested_by, phase = 'queued',
})
add_metadata(args.prefix, number, args.metadata)
redis.call('HSET', export, 'request', args.request, 'status', args.status, 'connection', args.connection,
  'kind', args.kind, 'requested_by', args.requested_by, 'phase', 'queued', 'step', 0, 'number', full(number))
if earlier or args.is_owned then
  redis.call('PEXPIRE', identity, args.message_ttl_ms)
  redis.call('HSET', export, 'message', identity)
end
if args.share and redis.call('ZCARD', args.prefix .. 'sharers:' .. args.share) < sharers_max then
  redis.call('HSET', export, 'share', args.share)
  join_sharing(args.prefix, args.export_id, args.share, args.now_ms)
end
if args.batch then
  join_batch(args.batch, number)
  redis.call('HSET', export, 'message', args.batch)
end
if args.priority then
  redis.call('HSET', export, 'priority', args.priority)
end
if args.trace then
  redis.call('HSET', export, 'trace', args.trace)
end
redis.call('ZADD', open, args.now_ms, args.export_id)
add_change(args.prefix, args.export_id, args.connection, args.kind, 'queued', nil)
redis.call('ZADD', queue, args.now_ms, args.job_id)
redis.call('PUBLISH', args.wake, '')
return answer('accepted', args.export_id, 'queued')
