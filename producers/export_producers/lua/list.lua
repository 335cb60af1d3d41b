-- Returns one page of the exports that match a filter, newest first. It writes nothing. `indexes.lua` and `rows.lua` of the
-- worker are loaded before this file.
--
-- The script searches the rows for the rarest value of the filter, and compares the other ones in the rows found. Exports
-- of an earlier version that have no numbers yet come last. For them, and for values that have no code, the answer also
-- has exports that do not match, and the caller, who reads the status of each export anyway, leaves them out.
--
-- KEYS: created (of exports without numbers)
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   facets               facet -> value: connection, kind, requested_by, error
--   phase                the phase of the exports (missing: any)
--   connections          the export is of one of these connections (missing: of any)
--   since_ms, until_ms   accepted at this time or later, and before this time (missing: any time)
--   after_number, after_ms, after_id
--                        the position of the last export of the page before (missing: this is the first page)
--   limit, examine_max   how many exports to return, and how many rows to compare
--   unsure_limit         as `limit`, if the answer may have exports that do not match, or a text is sought
--   sought_texts         the record of the export has one of these texts (missing: no search). The search also stops when
--                        it has read too many bytes: each `large_bytes` of a record count as an entry of the index
--   sought_name          the name of the metadata that is sought. If it is indexed for all exports, no record is read
--                        (missing: other texts are sought)
--   sought_metadata      NAME=VALUE of it
--   sought_id            or the id of the export begins with this text (missing: with none). An export with this id is
--                        the only result, if it exists
--   sought_key           the key of the idempotency key that is sought; its export is the only result, if it exists
--   state                the export waits for a slot of its connection (`waiting`), or has one for longer than usual
--                        (`slow`). Missing: it may or may not
--   paused               connection -> true: those whose parked exports wait for an operator
--   slow_since           connection -> kind -> the time (ms): an export that has its slot since an earlier one is slow
--   fields               the fields of the record of each export that the answer has as well. The page ends early when
--                        they have too many bytes, as a search does
-- Answer: a list. First a JSON object, then the fields of each export that was found, and the list of its stored files
--   found                list of {id, ms, number (strings)}; missing when nothing was found
--   next                 the position {id, ms, number} from which the next page continues; missing when there is none
--   unsure               true when there may be exports that do not match, else missing
--   total                how many exports match; missing when that is unknown
local args = cjson.decode(ARGV[1])
local created = KEYS[1]
local kept = redis.call('HMGET', args.prefix .. 'numbers', 'next', 'lowest')
local numbers_end = tonumber(kept[1] or '') or first_number
local numbers_start = tonumber(kept[2] or '') or numbers_end
local has_old = redis.call('EXISTS', created) == 1

-- Slot of the marks -> set of codes (bytes), of which an export must have one.
local wanted = {}
local unsure, is_impossible = nil, false

local function want(facet, values)
  local codes = {}
  for _, value in ipairs(values) do
    local code = facet == 'phase' and phase_codes[value] or known_code(args.prefix, facet, value)
    -- While all codes were in use, exports with this value were added with the code of all others.
    if facet ~= 'phase' and total_of_code(args.prefix, other_code) > 0 then
      codes[bytes_of(other_code)], unsure = true, true
    end
    if code then
      codes[bytes_of(code)] = true
    end
  end
  local earlier = wanted[facet_slots[facet]]
  if earlier then
    for code in pairs(codes) do
      codes[code] = earlier[code]
    end
  end
  wanted[facet_slots[facet]] = codes
  is_impossible = is_impossible or not next(codes)
end

if args.connections then
  want('connection', args.connections)
end
for facet, value in pairs(args.facets) do
  want(facet, {value})
end
if args.phase then
  want('phase', {args.phase})
end

local highest = args.until_ms and first_since(args.prefix, args.until_ms, numbers_end) - 1 or numbers_end - 1
local lowest = args.since_ms and first_since(args.prefix, args.since_ms, numbers_end) or numbers_start

-- Whether the digests of the metadata that is sought are of all exports: none is older than the setting.
local function has_digests()
  local complete_from = args.sought_name and redis.call('ZSCORE', args.prefix .. 'search-metadata', args.sought_name)
  if not complete_from or has_old then
    return false
  end
  local chunk = tonumber(redis.call('ZRANGE', args.prefix .. 'chunks', 0, 0)[1] or '')
  local marks = chunk and redis.call('GET', args.prefix .. 'marks:' .. full(chunk))
  local first = marks and string.find(marks, '[\128-\255]')
  local oldest_ms = first and row_created_ms(args.prefix, chunk, math.floor((first - 1) / mark_bytes))
  return not oldest_ms or oldest_ms >= tonumber(complete_from)
end

local texts, digest = args.sought_texts, nil
if texts and has_digests() then
  texts, digest = nil, digest_of(args.sought_metadata)
end

-- Returns the slot of the rarest codes, or nil without any, and how many exports have them.
local function rarest()
  local lead, smallest
  for slot, codes in pairs(wanted) do
    local size = 0
    for bytes in pairs(codes) do
      size = size + total_of_code(args.prefix, code_at(bytes, 1))
    end
    if not smallest or size < smallest then
      lead, smallest = slot, size
    end
  end
  return lead, smallest
end

-- Whether the caller may see an export. Otherwise the search continues as if there were none: its answer would show that
-- there is one, and would hide an export of the caller with this text.
local function is_visible(id, number)
  if not args.connections then
    return true
  end
  local marks = number and marks_of(args.prefix, number)
  if marks then
    return has_all({[facet_slots.connection] = wanted[facet_slots.connection]}, marks, 0)
  end
  local connection = redis.call('HGET', args.prefix .. 'export:' .. id, 'connection')
    or (read_past(args.prefix, id) or {}).connection
  for _, each in ipairs(args.connections) do
    if each == connection then
      return true
    end
  end
  return false
end

-- Returns the export that the search names, if no index is needed to find it.
local function named_export()
  local of_key = redis.call('HGET', args.sought_key, 'export_id')
  for _, id in ipairs({args.sought_id or of_key, of_key}) do
    local number = id and number_of(args.prefix, id)
    local ms = number and created_of(args.prefix, number) or id and tonumber(redis.call('ZSCORE', created, id) or '')
    if ms and is_visible(id, number) then
      return {id, full(ms), full(number or 0)}
    end
  end
  return nil
end

local answer = {false}

-- Adds the record of an export to the answer. Returns how many bytes it has. A packed record is the first field.
local function add_record(id)
  local bytes = 0
  local values = redis.call('HMGET', args.prefix .. 'export:' .. id, unpack(args.fields))
  local stored = values[1] and redis.call('LRANGE', args.prefix .. 'stored:' .. id, 0, -1) or {}
  values[1] = values[1] or redis.call('GET', args.prefix .. 'past:' .. id)
  for _, value in ipairs(values) do
    bytes = bytes + #(value or '')
    answer[#answer + 1] = value
  end
  for _, file in ipairs(stored) do
    bytes = bytes + #file
  end
  answer[#answer + 1] = stored
  return bytes
end

local function answer_with(document)
  answer[1] = cjson.encode(document)
  return answer
end

local named = args.sought_texts and not args.after_ms and not args.state and named_export()
if named then
  add_record(named[1])
  return answer_with({found = {named}})
end

-- Returns the codes (bytes) whose counters are the numbers of exports that match; nil if there are none.
local function counted_codes()
  local slots = 0
  for _ in pairs(wanted) do
    slots = slots + 1
  end
  local connections, phase = wanted[facet_slots.connection], args.phase and phase_codes[args.phase]
  if slots == 2 and connections and phase then
    local places = {}
    for bytes in pairs(connections) do
      places[bytes_of(code_at(bytes, 1) + phase)] = true
    end
    return places
  end
  return slots == 0 and {[no_code] = true} or slots == 1 and select(2, next(wanted)) or nil
end

-- Returns how many exports with some numbers match.
local function count_rows(first, last)
  local size, chunk = 0, math.floor(first / chunk_rows)
  if not next(wanted) and tally_of(args.prefix, chunk) == chunk_rows then
    return last - first + 1
  end
  local base = chunk * chunk_rows
  local marks = redis.call('GETRANGE', args.prefix .. 'marks:' .. full(chunk), (first - base) * mark_bytes,
    (last - base + 1) * mark_bytes - 1)
  return #matching_rows(marks, wanted, (rarest()))
end

local function count_in_time(codes)
  local size = 0
  for chunk in chunks_below(args.prefix, math.floor(highest / chunk_rows)) do
    local first, last = chunk * chunk_rows, math.min((chunk + 1) * chunk_rows, numbers_end) - 1
    if last < lowest then
      break
    elseif first >= lowest and last <= highest then
      size = size + tally_of(args.prefix, chunk, codes)
    else
      size = size + count_rows(math.max(first, lowest), math.min(last, highest))
    end
  end
  return size
end

-- chunk -> the positions of the digest that is sought
local known_positions = {}

local function sought_positions(chunk)
  known_positions[chunk] = known_positions[chunk] or digest_positions(args.prefix, args.sought_name, chunk, digest)
  return known_positions[chunk]
end

-- Returns how many exports have the metadata that is sought; nil if they are very many.
local function count_digests()
  local size = 0
  for chunk in chunks_below(args.prefix, math.floor(highest / chunk_rows)) do
    size = size + #sought_positions(chunk)
    if size > args.examine_max then
      return nil
    end
  end
  return size
end

-- Returns how many exports match, or nil if counting them would take too long.
local function total_of()
  local is_any_time = not args.since_ms and not args.until_ms
  if unsure or texts or args.state or has_old or (digest and (next(wanted) or not is_any_time)) then
    return nil
  end
  if digest then
    return count_digests()
  end
  local codes = counted_codes()
  if is_impossible then
    return 0
  elseif not codes then
    return nil
  elseif not is_any_time then
    return count_in_time(codes)
  end
  local size = 0
  for bytes in pairs(codes) do
    size = size + total_of_code(args.prefix, code_at(bytes, 1))
  end
  return size
end

local total = total_of()
local limit = (unsure or has_old or texts) and args.unsure_limit or args.limit
-- A cursor of an earlier version, or of an export that had no number, says only when the export was accepted.
local after_number = tonumber(args.after_number or 0)
local is_after_time = args.after_ms and after_number == 0

-- Exports of one millisecond are sorted by id if they have no numbers.
local function is_after(id, ms)
  return not is_after_time or ms < args.after_ms or (ms == args.after_ms and id < args.after_id)
end

local found, examined = {}, 0

-- Returns whether an export may be one that is sought: the caller, who reads its status anyway, compares it exactly.
local function may_be_sought(id)
  if not texts or (args.sought_id and string.sub(id, 1, #args.sought_id) == args.sought_id) then
    return true
  end
  local documents = redis.call('HMGET', args.prefix .. 'export:' .. id, 'status', 'request')
  if not documents[1] and not documents[2] then
    -- A packed record cannot be searched here.
    return redis.call('EXISTS', args.prefix .. 'past:' .. id) == 1
  end
  for _, document in ipairs(documents) do
    examined = examined + math.floor(#(document or '') / args.large_bytes)
    for _, text in ipairs(texts) do
      if string.find(document or '', text, 1, true) then
        return true
      end
    end
  end
  return false
end

-- Whether an export is in the state that is sought, if one is.
local function is_in_state(id)
  if not args.state then
    return true
  end
  local record = redis.call('HMGET', args.prefix .. 'export:' .. id, 'connection', 'kind', 'step')
  local connection, kind, step = record[1] or '', record[2] or '', record[3] or '0'
  if args.state == 'waiting' then
    local job = args.prefix .. id .. ':' .. step
    return not args.paused[connection] and redis.call('ZSCORE', args.prefix .. 'parked:' .. connection, job)
  end
  local slow_since = (args.slow_since[connection] or {})[kind]
  local since_ms = slow_since and redis.call('ZSCORE', args.prefix .. 'slots:' .. connection, id)
  return since_ms and tonumber(since_ms) < slow_since
end

-- Examines an export. Returns the position from which the next page continues if this one is full, else nil.
local function visit(id, ms, number)
  if not is_after(id, ms) then
    return nil
  end
  examined = examined + 1
  local entry = {id, full(ms), full(number)}
  if is_in_state(id) and may_be_sought(id) then
    if #found == limit then
      return found[limit]
    end
    found[#found + 1] = entry
    examined = examined + math.floor(add_record(id) / args.large_bytes)
  end
  return examined >= args.examine_max and entry or nil
end

local function visit_row(number)
  local id, ms = row_of(args.prefix, number)
  return id and visit(id, ms, number) or nil
end

local function visit_block(number, others)
  examined = examined + others
  local id, ms = row_of(args.prefix, number)
  return examined >= args.examine_max and number > lowest and id and {id, full(ms), full(number)} or nil
end

local function visit_digests(top)
  for chunk in chunks_below(args.prefix, math.floor(top / chunk_rows)) do
    for _, position in ipairs(sought_positions(chunk)) do
      local number = chunk * chunk_rows + position / digest_bytes
      local marks = number <= top and number >= lowest and marks_of(args.prefix, number)
      local following = marks and has_all(wanted, marks, 0) and visit_row(number)
      if following then
        return following
      end
    end
  end
  return nil
end

local function visit_old()
  local top = args.until_ms and '(' .. full(args.until_ms) or '+inf'
  if is_after_time and (not args.until_ms or args.after_ms < args.until_ms) then
    top = full(args.after_ms)
  end
  local offset, piece = 0, nil
  repeat
    piece = redis.call('ZREVRANGEBYSCORE', created, top, full(args.since_ms or 0), 'WITHSCORES', 'LIMIT', offset, 500)
    offset = offset + #piece / 2
    for position = 1, #piece, 2 do
      local following = visit(piece[position], tonumber(piece[position + 1]), 0)
      if following then
        return following
      end
    end
  until #piece == 0
  return nil
end

local top = highest
if after_number > 0 then
  top = math.min(top, after_number - 1)
elseif is_after_time then
  top = math.min(top, first_since(args.prefix, args.after_ms + 1, numbers_end) - 1)
end
local following = nil
if digest then
  following = visit_digests(top)
else
  local lead, size = rarest()
  if size ~= 0 then
    following = visit_rows(args.prefix, top, lowest, wanted, lead, size, visit_row, visit_block)
  end
end
if not following and has_old then
  unsure = true
  following = visit_old()
end
return answer_with({found = #found > 0 and found or nil, next = following, unsure = unsure, total = total})
