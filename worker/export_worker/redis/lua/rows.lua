-- Finds exports in the rows of `indexes.lua`, the newest first. Other scripts are joined to this file.

-- How many rows are read at once: 5 KB of marks.
local block_rows = 500

-- Iterates over the chunks that exist, in descending order, from one on. Most searches end in the first one.
local function chunks_below(prefix, highest)
  local piece, position, offset = {}, 0, 0
  return function()
    position = position + 1
    if position > #piece then
      piece = redis.call('ZREVRANGEBYSCORE', prefix .. 'chunks', full(highest), '-inf', 'LIMIT', offset,
        offset == 0 and 2 or 100)
      position, offset = 1, offset + #piece
    end
    return tonumber(piece[position] or '')
  end
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

-- Returns the positions in the digests of a chunk that have a digest of some metadata, the last one first.
local function digest_positions(prefix, name, chunk, digest)
  local bit = sieve_bit(digest)
  local byte = redis.call('GETRANGE', prefix .. 'sieve:' .. name .. ':' .. full(chunk), math.floor(bit / 8),
    math.floor(bit / 8))
  if byte == '' or math.floor(string.byte(byte) / 2 ^ (7 - bit % 8)) % 2 == 0 then
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

-- Returns how many exports of a chunk have one of the codes of a slot; without codes, how many there are.
local function tally_of(prefix, chunk, codes)
  local size = 0
  for bytes in pairs(codes or {[no_code] = true}) do
    local code = code_at(bytes, 1)
    local found = redis.call('GETRANGE', prefix .. 'tally:' .. full(chunk), code * 2, code * 2 + 1)
    size = size + (#found == 2 and struct.unpack('>I2', found) or 0)
  end
  return size
end

-- Calls `visit(number, marks, position)` for each export from one number down to another one whose marks match, until it
-- returns a value, which is returned. `visit_block(number, others)` is called after each block with its first number and
-- how many other rows were compared. It may end the search too. `size` is how many exports have the codes of `lead`: when
-- all of them were passed, older chunks are not read.
local function visit_rows(prefix, highest, lowest, wanted, lead, size, visit, visit_block)
  for chunk in chunks_below(prefix, math.floor(highest / chunk_rows)) do
    local base = chunk * chunk_rows
    if base + chunk_rows <= lowest then
      return nil
    end
    local top, bottom = math.min(highest - base, chunk_rows - 1), math.max(lowest - base, 0)
    local of_chunk = lead and tally_of(prefix, chunk, wanted[lead])
    while top >= bottom and of_chunk ~= 0 do
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
    size = size and of_chunk and size - of_chunk
    if size and size <= 0 then
      break
    end
  end
  return nil
end
