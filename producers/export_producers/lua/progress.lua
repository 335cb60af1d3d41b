-- Returns how far running transfers are: workers save it without an entry in the stream of changes. It writes nothing.
--
-- KEYS: index of the phase transferring
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   limit                how many transfers are read, the newest exports first
-- Answer: JSON object
--   transfers            list of {id, connection, kind, progress (JSON text)}; missing when none has saved its progress
local args = cjson.decode(ARGV[1])
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, args.limit - 1)) do
  local record = redis.call('HMGET', args.prefix .. 'export:' .. id, 'connection', 'kind', 'progress')
  if record[1] and record[3] then
    found[#found + 1] = {id, record[1], record[2] or '?', record[3]}
  end
end
return cjson.encode({transfers = #found > 0 and found or nil})
