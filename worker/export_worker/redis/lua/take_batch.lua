-- Takes one batch that has ended, to write its manifest and to announce its end. Another worker may take it when the time
-- for this is over.
--
-- KEYS: ended batches
-- ARGV[1]: JSON object
--   now_ms, prefix
--   until_ms             when another worker may take the batch
-- Answer: a list. First a JSON object {name}, which is empty when nothing is due. Then the values of the fields seed, total,
--   created_ms, requested_by, connections, accepted, open, succeeded, failed, cancelled, generation, ended_ms, stop,
--   manifest
local args = cjson.decode(ARGV[1])
local ended = KEYS[1]
for _, name in ipairs(redis.call('ZRANGEBYSCORE', ended, '-inf', args.now_ms, 'LIMIT', 0, 10)) do
  local batch = args.prefix .. 'batch:' .. name
  if redis.call('HEXISTS', batch, 'ended_ms') == 1 then
    redis.call('ZADD', ended, args.until_ms, name)
    return {cjson.encode({name = name}), unpack(redis.call('HMGET', batch, 'seed', 'total', 'created_ms', 'requested_by',
      'connections', 'accepted', 'open', 'succeeded', 'failed', 'cancelled', 'generation', 'ended_ms', 'stop',
      'manifest'))}
  end
  redis.call('ZREM', ended, name)
end
return {cjson.encode({none = true})}
