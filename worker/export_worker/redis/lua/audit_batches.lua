-- Counts the ends of exports of open batches that a worker of version 0.2 has not counted, and forgets batches that have
-- expired. `indexes.lua` and `batches.lua` are loaded before this file.
--
-- KEYS: open batches
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   now_ms
--   first, batches_max   which of the open batches are examined, and how many
--   exports_max          how many open exports of a batch are examined, chosen at random
-- Answer: more when there are open batches behind these, else complete
local args = cjson.decode(ARGV[1])
local open = KEYS[1]
local prefix = args.prefix
local phases = {}
for phase, code in pairs(phase_codes) do
  phases[code] = phase
end

-- Counts the end of an export, if it has ended. An export that the sweep has forgotten has ended long ago.
local function examine(batch, name, number)
  local marks = marks_of(prefix, number)
  local _, code = codes_in(marks or no_marks)
  if marks and code >= phase_codes.succeeded then
    leave_batch(prefix, batch, number, phases[code], args.now_ms)
  elseif not marks and redis.call('HDEL', batch, 'o:' .. full(number)) == 1 then
    redis.call('HINCRBY', batch, 'open', -1)
    settle_batch(prefix, batch, name, args.now_ms)
  end
end

local names = redis.call('ZRANGE', open, args.first, args.first + args.batches_max - 1)
for _, name in ipairs(names) do
  local batch = prefix .. 'batch:' .. name
  if redis.call('EXISTS', batch) == 0 then
    redis.call('ZREM', open, name)
  else
    for _, field in ipairs(redis.call('HRANDFIELD', batch, args.exports_max)) do
      local number = tonumber(string.match(field, '^o:(%d+)$') or '')
      if number then
        examine(batch, name, number)
      end
    end
  end
end
return #names < args.batches_max and 'complete' or 'more'
