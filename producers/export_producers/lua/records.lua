-- Returns what Redis has of exports, in one command: to read them with three commands each would cost the caller
-- several times as much processor time. It writes nothing.
--
-- KEYS: for each export its list of stored files, its record and its packed record
-- ARGV[1]: JSON object
--   fields   the fields of the record
-- Answer: a list. For each export the stored files, the values of the fields, and the packed record (nil if there is none)
local args = cjson.decode(ARGV[1])
local answer = {}
for first = 1, #KEYS, 3 do
  answer[first] = redis.call('LRANGE', KEYS[first], 0, -1)
  answer[first + 1] = redis.call('HMGET', KEYS[first + 1], unpack(args.fields))
  answer[first + 2] = redis.call('GET', KEYS[first + 2])
end
return answer
