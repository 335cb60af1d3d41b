-- Announces the end of a batch: adds its event to every outbox, in the same write that notes its manifest.
--
-- KEYS: batch, ended batches, event, outboxes (any number)
-- ARGV[1]: JSON object
--   name, now_ms, retention_ms
--   event_id
--   generation, ended_ms of the end that is announced (strings)
--   manifest             the address of the manifest
-- ARGV[2]: the event
-- Answer: announced, also for a repeated call; or reopened when an export of the batch was retried in the meantime
local args = cjson.decode(ARGV[1])
local batch, ended, event = unpack(KEYS)
local outboxes = {unpack(KEYS, 4)}
local found = redis.call('HMGET', batch, 'generation', 'ended_ms', 'manifest')
if found[1] ~= args.generation or found[2] ~= args.ended_ms then
  return 'reopened'
elseif found[3] then
  return 'announced'
end
redis.call('SET', event, ARGV[2], 'PX', args.retention_ms)
for _, outbox in ipairs(outboxes) do
  redis.call('ZADD', outbox, args.now_ms, args.event_id)
  redis.call('PEXPIRE', outbox, args.retention_ms)
end
redis.call('HSET', batch, 'manifest', args.manifest)
redis.call('PEXPIRE', batch, args.retention_ms)
redis.call('ZREM', ended, args.name)
return 'announced'
