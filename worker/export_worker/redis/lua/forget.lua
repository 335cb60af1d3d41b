-- Removes ended exports whose retention has passed from the indexes. Their records expire by themselves. `indexes.lua` is
-- loaded before this file.
--
-- The script reads the log of ended exports from its beginning. An export that was restarted after an entry has another
-- generation when it ends again, and that entry removes it.
--
-- KEYS: ended-hours, numbers
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   until_ms, max        exports that ended by then are removed, and at most so many entries of the log are read
--   now_ms               the logs of the hours before this one get no further entries
-- Answer: more when there may be more to remove, else complete
local args = cjson.decode(ARGV[1])
local hours, numbers = unpack(KEYS)
local prefix = args.prefix
local terminal = phase_codes.succeeded

-- chunk -> code -> how many exports of the chunk with this code are removed
local removed = {}

local digest_names = redis.call('ZRANGE', prefix .. 'digest-names', 0, -1)

-- Returns the generation of an export when it ended last.
local function last_generation(number)
  local chunk, row = chunk_of(number)
  local bytes = redis.call('GETRANGE', prefix .. 'ids:' .. chunk, row * id_bytes + 22, row * id_bytes + 23)
  return #bytes == 2 and struct.unpack('>I2', bytes)
end

local function remove(number, generation)
  local marks = marks_of(prefix, number)
  local _, phase = codes_in(marks or no_marks)
  if not marks or phase < terminal or last_generation(number) ~= generation then
    return
  end
  local chunk, row = chunk_of(number)
  removed[chunk] = removed[chunk] or {}
  add_changes(removed[chunk], marks, -1)
  redis.call('SETRANGE', prefix .. 'marks:' .. chunk, row * mark_bytes, no_marks)
  for _, name in ipairs(digest_names) do
    local digests = prefix .. 'digests:' .. name .. ':' .. chunk
    if redis.call('EXISTS', digests) == 1 then
      redis.call('SETRANGE', digests, row * digest_bytes, '\0\0\0\0')
    end
  end
end

local function remove_chunk(chunk)
  redis.call('DEL', prefix .. 'ids:' .. chunk, prefix .. 'marks:' .. chunk, prefix .. 'tally:' .. chunk)
  for _, name in ipairs(digest_names) do
    redis.call('DEL', prefix .. 'digests:' .. name .. ':' .. chunk, prefix .. 'sieve:' .. name .. ':' .. chunk)
  end
  redis.call('ZREM', prefix .. 'chunks', chunk)
end

-- Reads entries of an hour. Returns how many were handled, and whether these are all.
local function remove_of_hour(log, first, most)
  local entries = redis.call('GETRANGE', log, first * entry_bytes, (first + most) * entry_bytes - 1)
  local handled = 0
  for position = 1, #entries, entry_bytes do
    local number, ended_ms, generation = struct.unpack('>I6I6I2', entries, position)
    if ended_ms > args.until_ms then
      return handled, false
    end
    remove(number, generation)
    handled = handled + 1
  end
  return handled, handled < most
end

-- Copies the log of the last complete hour, once: a string that was appended to has spare memory.
local function trim_log()
  local this_hour = args.now_ms - args.now_ms % log_hour_ms
  local last = redis.call('ZREVRANGEBYSCORE', hours, '(' .. full(this_hour), '-inf', 'LIMIT', 0, 1)[1]
  if last and last ~= redis.call('HGET', numbers, 'trimmed') then
    redis.call('SET', prefix .. 'ended:' .. last, redis.call('GET', prefix .. 'ended:' .. last) or '')
    redis.call('HSET', numbers, 'trimmed', last)
  end
end

local left = args.max
while left > 0 do
  local hour = redis.call('ZRANGE', hours, 0, 0)[1]
  if not hour then
    break
  end
  local first = tonumber(redis.call('HGET', numbers, 'forgotten') or '0')
  local handled, is_all = remove_of_hour(prefix .. 'ended:' .. hour, first, left)
  left = left - handled
  if is_all then
    redis.call('DEL', prefix .. 'ended:' .. hour)
    redis.call('ZREM', hours, hour)
    redis.call('HDEL', numbers, 'forgotten')
  elseif handled > 0 then
    redis.call('HSET', numbers, 'forgotten', first + handled)
  end
  if not is_all and left > 0 then
    break
  end
end
for chunk, changes in pairs(removed) do
  if count(prefix, chunk, changes) == 0 then
    remove_chunk(chunk)
  end
end
trim_log()
return left == 0 and 'more' or 'complete'
