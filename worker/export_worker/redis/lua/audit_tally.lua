-- Compares the counters of one chunk with its rows, and some totals with the sum of the chunks. Corrects those that are
-- wrong, because Redis has lost a part of its keys. `indexes.lua` is loaded before this file. Each call examines the next
-- chunk and the next totals. A chunk that has lost its counters is the next one.
--
-- KEYS: numbers, chunks
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   now_ms, wait_ms      the time, and how long after a comparison without an error the next one is made
-- Answer: corrected when a counter was wrong, else complete; complete too when it is too early
local args = cjson.decode(ARGV[1])
local numbers, chunks = unpack(KEYS)
local prefix = args.prefix

-- How many counters of chunks one call adds, and the fewest totals that it compares.
local added_max, totals_min = 50000, 64

-- Returns the counters of each chunk as text, for some codes, and the first chunk that has lost them all.
local function tallies(first, last)
  local found, lost = {}, nil
  for _, chunk in ipairs(redis.call('ZRANGE', chunks, 0, -1)) do
    local key = prefix .. 'tally:' .. chunk
    lost = lost or redis.call('STRLEN', key) == 0 and chunk
    found[#found + 1] = redis.call('GETRANGE', key, first * 2, last * 2 + 1)
  end
  return found, lost
end

-- Returns the first chunk after the one that was compared last.
local function next_chunk()
  local last = redis.call('HGET', numbers, 'audited') or '-inf'
  return redis.call('ZRANGEBYSCORE', chunks, '(' .. last, '+inf', 'LIMIT', 0, 1)[1]
    or redis.call('ZRANGE', chunks, 0, 0)[1]
end

-- Returns the counters of some codes as text. `counts` has code -> how many exports have it.
local function packed(format, counts, first, last)
  local parts = {}
  for code = first, last do
    parts[#parts + 1] = struct.pack(format, counts[code] or 0)
  end
  return table.concat(parts)
end

-- Returns code -> how many rows of the chunk have it, and the highest code.
local function counted(chunk)
  local marks, found, highest = redis.call('GET', prefix .. 'marks:' .. chunk) or '', {}, 0
  for position = 1, #marks, mark_bytes do
    if string.byte(marks, position) >= 128 then
      add_changes(found, string.sub(marks, position, position + mark_bytes - 1), 1)
    end
  end
  for code in pairs(found) do
    highest = math.max(highest, code)
  end
  return found, highest
end

-- Compares the counters of a chunk. Returns whether some were wrong.
local function correct_chunk(chunk)
  local key = prefix .. 'tally:' .. chunk
  local tally = redis.call('GET', key) or ''
  local found, highest = counted(chunk)
  local right = packed('>I2', found, 0, math.max(highest, #tally / 2 - 1))
  if right == tally then
    return false
  end
  redis.call('SET', key, right)
  return true
end

-- Compares the next totals with the sums of the chunks. Returns whether some were wrong.
local function correct_totals(first, last, of_chunks)
  local sums, key = {}, prefix .. 'tally'
  for _, tally in ipairs(of_chunks) do
    for position = 1, #tally - 1, 2 do
      local high, low = string.byte(tally, position, position + 1)
      local code = first + (position - 1) / 2
      sums[code] = (sums[code] or 0) + high * 256 + low
    end
  end
  local kept, right = redis.call('GETRANGE', key, first * 4, last * 4 + 3), packed('>I4', sums, first, last)
  if kept .. string.rep('\0', #right - #kept) == right then
    return false
  end
  redis.call('SETRANGE', key, first * 4, right)
  return true
end

if args.now_ms - tonumber(redis.call('HGET', numbers, 'audited_ms') or '0') < args.wait_ms then
  return 'complete'
end
local codes_end = first_code + tonumber(redis.call('HGET', numbers, 'codes') or '0')
local size = math.max(totals_min, math.floor(added_max / math.max(1, redis.call('ZCARD', chunks))))
local first = tonumber(redis.call('HGET', numbers, 'summed') or '0')
first = first < codes_end and first or 0
local last = math.min(first + size, codes_end) - 1
local of_chunks, lost = tallies(first, last)
local chunk = lost or next_chunk()
local corrected = chunk and correct_chunk(chunk)
-- A sum without the counters that a chunk has lost would be too low.
if not corrected and correct_totals(first, last, of_chunks) then
  corrected = true
end
if not corrected then
  redis.call('HSET', numbers, 'audited_ms', full(args.now_ms))
end
if chunk and not lost then
  redis.call('HSET', numbers, 'audited', chunk)
end
if not lost then
  redis.call('HSET', numbers, 'summed', last + 1)
end
return corrected and 'corrected' or 'complete'
