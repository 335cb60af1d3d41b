-- Finds exports in the rows of `indexes.lua`, the newest first. Other scripts are joined to this file.

-- How many rows are read at once: 5 KB of marks.
local block_rows = 500

-- Returns the texts of keys with one command. An earlier ACL rule does not allow it; then each key is read.
local function texts_of(keys)
  local texts = #keys > 0 and redis.pcall('MGET', unpack(keys)) or {}
  if texts.err then
    texts = {}
    for place, key in ipairs(keys) do
      texts[place] = redis.call('GET', key)
    end
  end
  return texts
end

-- Iterates over the chunks that exist, in descending order, from one on. Most searches end in the first one. With `kind`,
-- it also returns the text of the key `kind .. chunk`. One command reads many of them: each command costs 3 µs.
local function chunks_below(prefix, highest, kind)
  local piece, texts, position, offset = {}, {}, 0, 0
  return function()
    position = position + 1
    if position > #piece then
      piece = redis.call('ZREVRANGEBYSCORE', prefix .. 'chunks', full(highest), '-inf', 'LIMIT', offset,
        offset == 0 and 2 or 100)
      position, offset = 1, offset + #piece
      local keys = {}
      for place, chunk in ipairs(kind and piece or {}) do
        keys[place] = prefix .. kind .. chunk
      end
      texts = texts_of(keys)
    end
    return tonumber(piece[position] or ''), texts[position]
  end
end

-- Returns the kind of the keys that have the counters of chunks, unless they are so long that each is read in parts.
local function short_tallies(prefix)
  return tonumber(redis.call('HGET', prefix .. 'numbers', 'codes') or '0') <= 1000 and 'tally:' or nil
end

local function row_created_ms(prefix, chunk, row)
  local bytes = redis.call('GETRANGE', prefix .. 'ids:' .. full(chunk), row * id_bytes + 16, row * id_bytes + 21)
  return #bytes == 6 and struct.unpack('>I6', bytes) or 0
end

-- Returns the lowest number that was accepted at a time (ms) or later; `next` if there is none.
local function first_since(prefix, ms, next_number_of_all)
  local chunks = prefix .. 'chunks'
  local low, high = 0, redis.call('ZCARD', chunks)
  while low < high do -- how many chunks begin before the time
    local middle = math.floor((low + high) / 2)
    local chunk = tonumber(redis.call('ZRANGE', chunks, middle, middle)[1])
    if row_created_ms(prefix, chunk, 0) < ms then
      low = middle + 1
    else
      high = middle
    end
  end
  local chunk = tonumber(redis.call('ZRANGE', chunks, math.max(low - 1, 0), math.max(low - 1, 0))[1] or '')
  if not chunk then
    return next_number_of_all
  end
  local first, last = 0, math.min(chunk_rows, next_number_of_all - chunk * chunk_rows)
  while first < last do
    local middle = math.floor((first + last) / 2)
    if row_created_ms(prefix, chunk, middle) < ms then
      first = middle + 1
    else
      last = middle
    end
  end
  return chunk * chunk_rows + first
end

-- Returns the code of a set that has one code only, else nil.
local function only_code(codes)
  local first = next(codes)
  return first and not next(codes, first) and first or nil
end

-- Whether the marks at a position have one of the codes in each slot. `wanted` has slot -> set of codes as bytes.
local function has_all(wanted, marks, position)
  for slot, codes in pairs(wanted) do
    if not codes[string.sub(marks, position + slot, position + slot + 1)] then
      return false
    end
  end
  return true
end

-- Returns the positions in a text of rows at which `bytes` are in the place of a row, the last one first.
local function positions_of(text, bytes, row_bytes, slot)
  local found, from = {}, 1
  while true do
    local at = string.find(text, bytes, from, true)
    if not at then
      break
    end
    if (at - slot) % row_bytes == 0 then
      found[#found + 1] = at - slot
    end
    from = at + 1
  end
  for position = 1, math.floor(#found / 2) do
    found[position], found[#found + 1 - position] = found[#found + 1 - position], found[position]
  end
  return found
end

-- Returns the positions in the digests of a chunk that have a digest of some metadata, the last one first. `sieve` is the
-- sieve of the chunk, or false if it has none.
local function digest_positions(prefix, name, chunk, digest, sieve)
  local bit = sieve_bit(digest)
  local byte = string.byte(sieve or '', math.floor(bit / 8) + 1)
  if not byte or math.floor(byte / 2 ^ (7 - bit % 8)) % 2 == 0 then
    return {}
  end
  local digests = redis.call('GET', prefix .. 'digests:' .. name .. ':' .. full(chunk))
  return positions_of(digests or '', digest, digest_bytes, 1)
end

-- Returns the positions of the rows of some marks that match, as bytes from 0, the last one first, and how many rows were
-- compared. `lead` is the slot whose codes are searched; nil: every row is examined.
local function matching_rows(marks, wanted, lead)
  local code = lead and only_code(wanted[lead])
  local candidates = code and positions_of(marks, code, mark_bytes, lead)
  local found = {}
  if candidates then
    for _, position in ipairs(candidates) do
      if has_all(wanted, marks, position) then
        found[#found + 1] = position
      end
    end
    return found, #candidates
  end
  for position = #marks - mark_bytes, 0, -mark_bytes do
    if string.byte(marks, position + 1) >= 128 and has_all(wanted, marks, position) then
      found[#found + 1] = position
    end
  end
  return found, #marks / mark_bytes
end

-- Returns how many exports of a chunk have one of the codes of a slot; without codes, how many there are. `tally` has the
-- counters of the chunk, if they have been read.
local function tally_of(prefix, chunk, codes, tally)
  local size = 0
  for bytes in pairs(codes or {[no_code] = true}) do
    local code = code_at(bytes, 1)
    local found = tally and string.sub(tally, code * 2 + 1, code * 2 + 2)
      or redis.call('GETRANGE', prefix .. 'tally:' .. full(chunk), code * 2, code * 2 + 1)
    size = size + (#found == 2 and struct.unpack('>I2', found) or 0)
  end
  return size
end

-- Calls `visit(number, marks, position)` for each export from one number down to another one whose marks match, until it
-- returns a value, which is returned. `visit_block(number, others)` is called after each block with its first number and
-- how many other rows were compared. It may end the search too.
local function visit_rows(prefix, highest, lowest, wanted, lead, visit, visit_block)
  for chunk, tally in chunks_below(prefix, math.floor(highest / chunk_rows), lead and short_tallies(prefix)) do
    local base = chunk * chunk_rows
    if base + chunk_rows <= lowest then
      return nil
    end
    local top, bottom = math.min(highest - base, chunk_rows - 1), math.max(lowest - base, 0)
    local is_empty = lead and tally_of(prefix, chunk, wanted[lead], tally) == 0
    while top >= bottom and not is_empty do
      local first = math.max(bottom, top - block_rows + 1)
      local marks = redis.call('GETRANGE', prefix .. 'marks:' .. full(chunk), first * mark_bytes,
        (top + 1) * mark_bytes - 1)
      local found, compared = matching_rows(marks, wanted, lead)
      for _, position in ipairs(found) do
        local answer = visit(base + first + position / mark_bytes, marks, position)
        if answer ~= nil then
          return answer
        end
      end
      local answer = visit_block and visit_block(base + first, compared - #found)
      if answer then
        return answer
      end
      top = first - 1
    end
  end
  return nil
end
