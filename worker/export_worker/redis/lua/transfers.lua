-- Returns the newest exports that are transferred, and how far they are. It writes nothing. `indexes.lua` and `rows.lua`
-- are loaded before this file.
--
-- KEYS: numbers
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   limit                how many exports are read
-- Answer: JSON object
--   transfers            list of {id, connection, kind, progress (JSON text, or "")}; missing when there is none
local args = cjson.decode(ARGV[1])
local last = tonumber(redis.call('HGET', KEYS[1], 'next') or '') or first_number
local wanted = {[facet_slots.phase] = {[bytes_of(phase_codes.transferring)] = true}}
local left = total_of_code(args.prefix, phase_codes.transferring)
local found = {}

local function visit(number)
  local id = row_of(args.prefix, number)
  local record = redis.call('HMGET', args.prefix .. 'export:' .. id, 'connection', 'kind', 'progress')
  if record[1] then
    found[#found + 1] = {id, record[1], record[2] or '?', record[3] or ''}
  end
  left = left - 1
  return (left == 0 or #found == args.limit) or nil
end

if left > 0 then
  visit_rows(args.prefix, last - 1, 0, wanted, facet_slots.phase, nil, visit)
end
return cjson.encode({transfers = #found > 0 and found or nil})
