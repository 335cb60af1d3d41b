-- Creates a batch, or returns the one that has its name. `indexes.lua` and `batches.lua` of the worker are loaded before
-- this file.
--
-- KEYS: batch
-- ARGV[1]: JSON object
--   name, prefix
--   seed                 the text that the ids of a new batch are made of
--   total, fingerprint   how many requests the batch has, and the digest of all of them
--   created_ms
--   requested_by
--   connections          JSON text: a list of their names
-- Answer: JSON object {verdict, seed}
--   opened               the batch is new, or has the same requests; seed is its own one
--   conflict             the batch has other requests
local args = cjson.decode(ARGV[1])
local batch = KEYS[1]
local known = redis.call('HMGET', batch, 'fingerprint', 'seed')
if known[1] then
  return cjson.encode({verdict = known[1] == args.fingerprint and 'opened' or 'conflict', seed = known[2]})
end
redis.call('HSET', batch, 'seed', args.seed, 'total', args.total, 'fingerprint', args.fingerprint,
  'created_ms', full(args.created_ms), 'requested_by', args.requested_by, 'connections', args.connections,
  'accepted', 0, 'open', 0)
redis.call('PEXPIRE', batch, open_batch_ms)
redis.call('ZADD', args.prefix .. 'batches', args.created_ms, args.name)
redis.call('ZADD', args.prefix .. 'batches-open', args.created_ms, args.name)
return cjson.encode({verdict = 'opened', seed = args.seed})
