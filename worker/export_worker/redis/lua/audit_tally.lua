-- Compares the counters of one chunk with its rows, and corrects them, if Redis has lost a part of its keys. `indexes.lua`
-- is loaded before this file. Each call examines the next chunk, so all chunks are compared in turn.
--
-- KEYS: numbers, chunks
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   now_ms, wait_ms      the time, and how long after a comparison the next one is made
-- Answer: corrected when a counter was wrong, else right; waits when it is too early
local args = cjson.decode(ARGV[1])
local numbers, chunks = unpack(KEYS)
local prefix = args.prefix

-- Returns the first chunk after the one that was compared last.
local function next_chunk()
  local last = redis.call('HGET', numbers, 'audited') or '-inf'
  return redis.call('ZRANGEBYSCORE', chunks, '(' .. last, '+inf', 'LIMIT', 0, 1)[1]
    or redis.call('ZRANGE', chunks, 0, 0)[1]
end

-- Returns code -> how many rows of the chunk have it.
local function counted(chunk)
  local marks, found = redis.call('GET', prefix .. 'marks:' .. chunk) or '', {}
  for position = 1, #marks, mark_bytes do
    if string.byte(marks, position) >= 128 then
      add_changes(found, string.sub(marks, position, position + mark_bytes - 1), 1)
    end
  end
  return found
end

-- Returns code -> by how much the counters of the chunk are too low.
local function missing_in(chunk)
  local missing, tally = counted(chunk), redis.call('GET', prefix .. 'tally:' .. chunk) or ''
  for code = 0, #tally / 2 - 1 do
    missing[code] = (missing[code] or 0) - struct.unpack('>I2', tally, code * 2 + 1)
  end
  for code, more in pairs(missing) do
    missing[code] = more ~= 0 and more or nil
  end
  return missing
end

if args.now_ms - tonumber(redis.call('HGET', numbers, 'audited_ms') or '0') < args.wait_ms then
  return 'waits'
end
local chunk = next_chunk()
if not chunk then
  return 'right'
end
redis.call('HSET', numbers, 'audited', chunk, 'audited_ms', full(args.now_ms))
local missing = missing_in(chunk)
if not next(missing) then
  return 'right'
end
count(prefix, chunk, missing)
return 'corrected'
