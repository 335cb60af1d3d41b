-- Returns entries of the log of ended exports. It writes nothing. `indexes.lua` is loaded before this file.
--
-- KEYS: log of one hour
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   first, limit         the position of the first entry, and how many positions are read
-- Answer: JSON object
--   length               how many entries the hour has
--   entries              list of {id, ended_ms, generation, position}, without forgotten exports; missing when empty
local args = cjson.decode(ARGV[1])
local log = KEYS[1]
local length = redis.call('STRLEN', log) / entry_bytes
local entries = ''
if args.limit > 0 then
  entries = redis.call('GETRANGE', log, args.first * entry_bytes, (args.first + args.limit) * entry_bytes - 1)
end
local found = {}
for position = 1, #entries, entry_bytes do
  local number, ended_ms, generation = struct.unpack('>I6I6I2', entries, position)
  local id = marks_of(args.prefix, number) and row_of(args.prefix, number)
  if id then
    found[#found + 1] = {id, ended_ms, generation, args.first + (position - 1) / entry_bytes}
  end
end
return cjson.encode({length = length, entries = #found > 0 and found or nil})
