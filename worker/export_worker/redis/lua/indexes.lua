-- The indexes by which exports are listed and counted, and the log of ended exports. Other scripts are joined to this
-- file. The prefix is the namespace with its colon.
--
-- Every export has a number. Numbers grow in the order of acceptance, and 4,000 of them are a chunk. All that lists need
-- of an export is in two rows of its chunk, and all totals are counters:
--
--   numbers        hash: next (the next number), last_ms (the highest time of acceptance), lowest, lowest_ms (of exports
--                  that were migrated), codes (how many codes were given), forgotten (entries of the oldest hour that the
--                  sweep has handled), trimmed (the last hour whose log has no spare memory),
--                  audited, audited_ms (the chunk whose counters the sweep has compared last, and when), summed (the
--                  first total that it compares next)
--   ids:CHUNK      string of rows of 24 bytes: id (16), time of acceptance in ms (6), generation of the last end (2)
--   marks:CHUNK    string of rows of 10 bytes: the codes of connection, kind, requester, phase and error. No export: zeros
--   codes:FACET    hash of value -> code. A connection has seven codes: its own one, and one for it in each phase
--   values         hash of code -> FACET:VALUE
--   codes-free:N   sorted set of codes that no export has any more, for values that need N codes
--   tally:CHUNK    string of 16-bit counters: how many exports of the chunk have a code. Code 0: how many there are
--   tally          string of 32-bit counters: the same of all chunks
--   chunks         sorted set of the chunks that exist
--   digests:NAME:CHUNK
--                  string of rows of 4 bytes: a digest of the metadata of this name; see `gateway.search_metadata`
--   sieve:NAME:CHUNK
--                  string of 32,768 bits: those of the digests of the chunk are set, so that a search skips other chunks
--   digest-names   sorted set of the names that have digests
--   open-of:CODE   sorted set of the numbers of the open exports of one connection
--   ended:HOUR_MS  string of entries of 14 bytes, appended when an export ends: number (6), time in ms (6), generation (2)
--   ended-hours    sorted set of the hours that have entries
--   ended-closed   the last hour (ms) that gets no further entries, if the log is archived
--
-- A code is two bytes, of which only the first one is 128 or more. So a plain search in a string of rows finds a code in
-- its place only. There are 16,384 codes. A value that gets none has the code `other`, and readers compare its exports.
--
-- Memory, for each export: ids 24.6 and marks 10.2 bytes with the rounding of the allocator, tally 0.1 to 8 (with 16,384
-- codes), log 14 (28 in its own hour), digests and sieve 5.2 for each name. An open export also has 100 bytes in `open-of`. A chunk
-- is removed when the sweep has forgotten all its exports.

local chunk_rows = 4000
local first_number = 2147484000
local id_bytes, mark_bytes, digest_bytes, entry_bytes = 24, 10, 4, 14
local codes_max, other_code, first_code = 16384, 7, 16
local log_hour_ms = 3600000
local phase_codes = {queued = 1, running = 2, transferring = 3, succeeded = 4, failed = 5, cancelled = 6}
local facet_slots = {connection = 1, kind = 3, requested_by = 5, phase = 7, error = 9}
local id_format = string.rep('%02x', 16)
local no_code, no_marks, no_id = '\0\0', string.rep('\0', mark_bytes), string.rep('\0', 16)

-- A number in full: `..` keeps 14 digits only.
local function full(number)
  return string.format('%.0f', number)
end

local function bytes_of(code)
  return code == 0 and no_code or string.char(128 + code % 128, math.floor(code / 128))
end

local function code_at(marks, position)
  local low, high = string.byte(marks, position, position + 1)
  return low and low >= 128 and low - 128 + high * 128 or 0
end

-- Returns the chunk of a number and its row.
local function chunk_of(number)
  return full(math.floor(number / chunk_rows)), number % chunk_rows
end

local function marks_of(prefix, number)
  local chunk, row = chunk_of(number)
  local marks = redis.call('GETRANGE', prefix .. 'marks:' .. chunk, row * mark_bytes, (row + 1) * mark_bytes - 1)
  return marks ~= '' and marks ~= no_marks and marks or nil
end

-- Returns the id, the time of acceptance and the last generation of an export; nil if its chunk does not exist.
local function row_of(prefix, number)
  local chunk, row = chunk_of(number)
  local found = redis.call('GETRANGE', prefix .. 'ids:' .. chunk, row * id_bytes, (row + 1) * id_bytes - 1)
  if #found < id_bytes then
    return nil
  end
  return string.format(id_format, string.byte(found, 1, 16)), struct.unpack('>I6I2', found, 17)
end

local function created_of(prefix, number)
  local _, created_ms = row_of(prefix, number)
  return created_ms
end

-- Returns the number of an export from its record; nil if it has none, because an earlier version accepted it.
local function number_of(prefix, id)
  local number = redis.call('HGET', prefix .. 'export:' .. id, 'number')
    or string.match(redis.call('GETRANGE', prefix .. 'past:' .. id, 0, 80), '^%d+\n%a+\n%d+\n%d+\n(%d+)\n')
  number = tonumber(number or '')
  return number and number > 0 and number or nil
end

local function known_code(prefix, facet, value)
  return tonumber(redis.call('HGET', prefix .. 'codes:' .. facet, value) or '')
end

local function code_of(prefix, facet, value)
  local code = known_code(prefix, facet, value)
  if code then
    return code
  end
  local width = facet == 'connection' and 7 or 1
  code = tonumber(redis.call('ZPOPMIN', prefix .. 'codes-free:' .. width)[1] or '')
  if not code then
    local given = tonumber(redis.call('HGET', prefix .. 'numbers', 'codes') or '0')
    if first_code + given + width > codes_max then
      return other_code
    end
    redis.call('HINCRBY', prefix .. 'numbers', 'codes', width)
    code = first_code + given
  end
  redis.call('HSET', prefix .. 'codes:' .. facet, value, code)
  redis.call('HSET', prefix .. 'values', code, facet .. ':' .. value)
  return code
end

-- Whether the counters of a chunk say that an export has a code, though the total says that none has: it was lost.
local function is_in_chunks(prefix, code)
  for _, chunk in ipairs(redis.call('ZRANGE', prefix .. 'chunks', 0, -1)) do
    local size = redis.call('GETRANGE', prefix .. 'tally:' .. chunk, code * 2, code * 2 + 1)
    if size ~= '' and size ~= '\0\0' then
      return true
    end
  end
  return false
end

-- Lets another value have a code that no export has any more.
local function free_code(prefix, code)
  local facet, value = string.match(redis.call('HGET', prefix .. 'values', code) or '', '^([^:]*):(.*)$')
  if facet and not is_in_chunks(prefix, code) then
    redis.call('HDEL', prefix .. 'codes:' .. facet, value)
    redis.call('HDEL', prefix .. 'values', code)
    redis.call('ZADD', prefix .. 'codes-free:' .. (facet == 'connection' and 7 or 1), code, code)
  end
end

-- Adds to counters of some codes, and returns them.
local function add_to_counters(key, size, codes, changes)
  local operations = {'OVERFLOW', 'SAT'}
  for position, code in ipairs(codes) do
    local last = position * 4 - 2
    operations[last + 1], operations[last + 2] = 'INCRBY', size
    operations[last + 3], operations[last + 4] = '#' .. code, changes[code]
  end
  return redis.call('BITFIELD', key, unpack(operations))
end

-- Adds to the counters of one chunk, and to those of all chunks. `changes` has code -> how many more. Returns how many
-- exports the chunk has, if their number changes.
local function count(prefix, chunk, changes)
  local codes, alive = {}, nil
  local function add()
    local sizes = add_to_counters(prefix .. 'tally:' .. chunk, 'u16', codes, changes)
    local totals = add_to_counters(prefix .. 'tally', 'u32', codes, changes)
    for position, code in ipairs(codes) do
      if code == 0 then
        alive = sizes[position]
      elseif code >= first_code and totals[position] == 0 then
        free_code(prefix, code)
      end
    end
    codes = {}
  end
  for code, more in pairs(changes) do
    if more ~= 0 then
      codes[#codes + 1] = code
      -- Lua passes some 8,000 arguments at most.
      if #codes == 1000 then
        add()
      end
    end
  end
  if #codes > 0 then
    add()
  end
  return alive
end

-- Returns the counter of a code in a text of `tally`.
local function total_in(tally, code)
  return #tally >= code * 4 + 4 and struct.unpack('>I4', tally, code * 4 + 1) or 0
end

local function total_of_code(prefix, code)
  return total_in(redis.call('GETRANGE', prefix .. 'tally', code * 4, code * 4 + 3), 0)
end

local function codes_in(marks)
  local connection, phase = code_at(marks, facet_slots.connection), code_at(marks, facet_slots.phase)
  return connection, phase, code_at(marks, facet_slots.error)
end

-- Adds to a table of changes what one export with these marks counts.
local function add_changes(changes, marks, more)
  local connection, phase, error = codes_in(marks)
  local kind, requester = code_at(marks, facet_slots.kind), code_at(marks, facet_slots.requested_by)
  for _, code in ipairs({0, connection, connection + phase, kind, requester, phase}) do
    changes[code] = (changes[code] or 0) + more
  end
  if error > 0 then
    changes[error] = (changes[error] or 0) + more
  end
end

-- Returns the next number, or the next one below all others, and the time of acceptance that keeps their order.
local function next_number(prefix, created_ms, is_older)
  local numbers = prefix .. 'numbers'
  local kept = redis.call('HMGET', numbers, 'next', 'last_ms', 'lowest', 'lowest_ms')
  if is_older then
    local number = (tonumber(kept[3] or '') or first_number) - 1
    local at_ms = math.min(created_ms, tonumber(kept[4] or '') or created_ms)
    redis.call('HSET', numbers, 'lowest', full(number), 'lowest_ms', full(at_ms))
    return number, at_ms
  end
  local number = tonumber(kept[1] or '') or first_number
  local at_ms = math.max(created_ms, tonumber(kept[2] or '') or 0)
  if not kept[4] then
    redis.call('HSET', numbers, 'lowest', full(number), 'lowest_ms', full(at_ms))
  end
  redis.call('HSET', numbers, 'next', full(number + 1), 'last_ms', full(at_ms))
  return number, at_ms
end

-- Returns a digest of the value of metadata. It is never four zeros.
local function digest_of(text)
  local digest = string.gsub(string.sub(redis.sha1hex(text), 1, digest_bytes * 2), '%x%x', function(byte)
    return string.char(tonumber(byte, 16))
  end)
  return digest == '\0\0\0\0' and '\1\0\0\0' or digest
end

-- Returns the bit of a digest in the sieve of a chunk.
local function sieve_bit(digest)
  return struct.unpack('>I4', digest) % 32768
end

-- Indexes an export by the metadata that the setting `gateway.search_metadata` names.
local function add_metadata(prefix, number, metadata)
  local chunk, row = chunk_of(number)
  for _, name in ipairs(metadata and redis.call('ZRANGE', prefix .. 'search-metadata', 0, -1) or {}) do
    if type(metadata[name]) == 'string' then
      local digests = prefix .. 'digests:' .. name .. ':' .. chunk
      if redis.call('STRLEN', digests) == 0 then
        redis.call('ZADD', prefix .. 'digest-names', 0, name)
        redis.call('SETRANGE', digests, chunk_rows * digest_bytes - 1, '\0')
        redis.call('SETRANGE', prefix .. 'sieve:' .. name .. ':' .. chunk, 32768 / 8 - 1, '\0')
      end
      local digest = digest_of(name .. '=' .. metadata[name])
      redis.call('SETRANGE', digests, row * digest_bytes, digest)
      redis.call('BITFIELD', prefix .. 'sieve:' .. name .. ':' .. chunk, 'SET', 'u1', sieve_bit(digest), 1)
    end
  end
end

-- Adds an export to the indexes, and returns its number. `facets` has connection, kind, requested_by, phase and, of a
-- failed export, error. `is_older`: it was accepted before all exports that have numbers.
local function add_export(prefix, id, created_ms, facets, is_older)
  local number, at_ms = next_number(prefix, created_ms, is_older)
  local chunk, row = chunk_of(number)
  local marks = bytes_of(code_of(prefix, 'connection', facets.connection))
    .. bytes_of(code_of(prefix, 'kind', facets.kind))
    .. bytes_of(code_of(prefix, 'requested_by', facets.requested_by))
    .. bytes_of(phase_codes[facets.phase] or phase_codes.queued)
    .. (facets.error and bytes_of(code_of(prefix, 'error', facets.error)) or no_code)
  local changes = {}
  add_changes(changes, marks, 1)
  if count(prefix, chunk, changes) == 1 then
    -- The first one of its chunk. The strings get their whole size at once, so that they have no spare memory.
    redis.call('ZADD', prefix .. 'chunks', chunk, chunk)
    redis.call('SETRANGE', prefix .. 'ids:' .. chunk, chunk_rows * id_bytes - 1, '\0')
    redis.call('SETRANGE', prefix .. 'marks:' .. chunk, chunk_rows * mark_bytes - 1, '\0')
  end
  local bytes = string.gsub(id, '%x%x', function(byte)
    return string.char(tonumber(byte, 16))
  end)
  redis.call('SETRANGE', prefix .. 'ids:' .. chunk, row * id_bytes,
    string.sub(bytes .. no_id, 1, #no_id) .. struct.pack('>I6I2', at_ms, 0))
  redis.call('SETRANGE', prefix .. 'marks:' .. chunk, row * mark_bytes, marks)
  local connection, phase = codes_in(marks)
  if phase < phase_codes.succeeded then
    redis.call('ZADD', prefix .. 'open-of:' .. connection, full(number), full(number))
  end
  return number
end

-- Changes the phase of an export in the indexes, and its error.
local function move_export(prefix, number, phase, error)
  local marks = marks_of(prefix, number)
  if not marks then
    return
  end
  local connection, old_phase, old_error = codes_in(marks)
  local new_phase, new_error = phase_codes[phase], error and code_of(prefix, 'error', error) or 0
  if new_phase == old_phase and new_error == old_error then
    return
  end
  local chunk, row = chunk_of(number)
  redis.call('SETRANGE', prefix .. 'marks:' .. chunk, row * mark_bytes + facet_slots.phase - 1,
    bytes_of(new_phase) .. bytes_of(new_error))
  local changes = {}
  for _, each in ipairs({{old_phase, -1}, {connection + old_phase, -1}, {old_error, -1}, {new_phase, 1},
    {connection + new_phase, 1}, {new_error, 1}}) do
    changes[each[1]] = (changes[each[1]] or 0) + each[2]
  end
  changes[0] = nil
  count(prefix, chunk, changes)
  local was_open, is_open = old_phase < phase_codes.succeeded, new_phase < phase_codes.succeeded
  if was_open and not is_open then
    redis.call('ZREM', prefix .. 'open-of:' .. connection, full(number))
  elseif is_open and not was_open then
    redis.call('ZADD', prefix .. 'open-of:' .. connection, full(number), full(number))
  end
end

-- Appends the end of an export to the log of its hour, or of the first hour that is not closed.
local function log_end(prefix, number, ended_ms, generation)
  local hour = ended_ms - ended_ms % log_hour_ms
  local closed = tonumber(redis.call('GET', prefix .. 'ended-closed') or '')
  if closed and hour <= closed then
    hour = closed + log_hour_ms
  end
  local entry = struct.pack('>I6I6I2', number, ended_ms, generation % 65536)
  if redis.call('APPEND', prefix .. 'ended:' .. full(hour), entry) == entry_bytes then
    redis.call('ZADD', prefix .. 'ended-hours', full(hour), full(hour))
  end
  local chunk, row = chunk_of(number)
  redis.call('SETRANGE', prefix .. 'ids:' .. chunk, row * id_bytes + 22, struct.pack('>I2', generation % 65536))
end

-- Removes an export from the sorted sets of an earlier version of which readers use the sizes.
local function remove_old(prefix, id, connection, phase)
  for _, set in ipairs({'created', 'phase:' .. phase, 'by-place:' .. (connection or '?') .. ':' .. phase}) do
    redis.call('ZREM', prefix .. set, id)
  end
end

-- Gives an export of an earlier version its number when a worker or producer changes it. `record` has connection, kind,
-- requested_by and phase of its record, in this order.
local function number_of_old(prefix, id, record)
  local number = number_of(prefix, id)
  -- The sweep may have forgotten an export whose record still exists, for example after the retention was shortened.
  if number and marks_of(prefix, number) then
    return number
  end
  local created = prefix .. 'created'
  local created_ms = tonumber(redis.call('ZSCORE', created, id) or redis.call('TIME')[1] * 1000)
  local phase = record[4]
  number = add_export(prefix, id, created_ms, {
    connection = record[1] or '?', kind = record[2] or '?', requested_by = record[3] or '?', phase = phase,
  }, false)
  redis.call('HSET', prefix .. 'export:' .. id, 'number', full(number))
  remove_old(prefix, id, record[1], phase)
  return number
end
