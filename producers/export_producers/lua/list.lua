-- Returns one page of the exports that match a filter, newest first. It writes nothing. `indexes.lua` of the worker is
-- loaded before this file.
--
-- The script reads the smallest index of the filter, and looks each export up in the other ones. The indexes of a facet
-- are used only if they are complete (see `repair_indexes.lua`). Otherwise the answer also has exports that do not match,
-- and the caller, who reads the status of each export anyway, leaves them out.
--
-- KEYS: created, index of the phase failed, index of the filter's phase (only if it has a phase)
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   facets               facet -> value
--   connections          the export is of one of these connections (missing: of any)
--   first, last          the highest and lowest time (ms) of creation, as ZREVRANGEBYSCORE has them
--   after_ms, after_id   the position of the last export of the page before (missing: this is the first page)
--   limit, examine_max   how many exports to return, and how many entries of the index to read
--   unsure_limit         as `limit`, if the answer may have exports that do not match, or a text is sought
--   sought_texts         the record of the export has one of these texts (missing: no search). The search also stops when
--                        it has read too many bytes: each `large_bytes` of a record count as an entry of the index
--   sought_name, sought_index
--                        the name of the metadata that is sought, and the index of the exports with its value. If the
--                        index has all these exports, no record is read (missing: other texts are sought)
--   sought_id            or the id of the export begins with this text (missing: with none). An export with this id is
--                        the only result, if it exists
--   sought_key           the key of the idempotency key that is sought; its export is the only result, if it exists
--   state                the export waits for a slot of its connection (`waiting`), or has one for longer than usual
--                        (`slow`). Missing: it may or may not
--   paused               connection -> true: those whose parked exports wait for an operator
--   slow_since           connection -> kind -> the time (ms): an export that has its slot since an earlier one is slow
--   fields               the fields of the record of each export that the answer has as well (missing: none). The page
--                        ends early when they have too many bytes, as a search does
-- Answer: a list. First a JSON object, then the fields of each export that was found
--   found                list of {id, ms (strings)}; missing when nothing was found
--   next                 the position {id, ms} from which the next page continues; missing when there is no next page
--   unsure               true when there may be exports that do not match, else missing
--   total                how many exports match; missing when that is unknown
local args = cjson.decode(ARGV[1])
local created, failed, phase_index = unpack(KEYS)
local all_of = {connection = created, kind = created, requested_by = created, error = failed}

local unsure = nil
local indexes = {phase_index}
for facet, value in pairs(args.facets) do
  if is_complete(args.prefix, facet, all_of[facet]) then
    indexes[#indexes + 1] = args.prefix .. 'by-' .. facet .. ':' .. value
  else
    unsure = true
    indexes[#indexes + 1] = all_of[facet]
  end
end
-- The indexes of the connections, of which an export must be in one; nil if it may be of any connection.
local of_connections = nil
if args.connections and is_complete(args.prefix, 'connection', created) then
  of_connections = {}
  for _, connection in ipairs(args.connections) do
    of_connections[#of_connections + 1] = args.prefix .. 'by-connection:' .. connection
  end
  if #of_connections == 1 then
    indexes[#indexes + 1] = of_connections[1]
    of_connections = nil
  end
elseif args.connections then
  unsure = true
end
-- Whether the index of the metadata that is sought has every export with it: none is older than the index.
local function has_metadata_index()
  local complete_from = args.sought_name and redis.call('ZSCORE', args.prefix .. 'search-metadata', args.sought_name)
  local oldest_ms = redis.call('ZRANGE', created, 0, 0, 'WITHSCORES')[2]
  return complete_from and (not oldest_ms or tonumber(oldest_ms) >= tonumber(complete_from))
end

local texts = args.sought_texts
if texts and has_metadata_index() then
  indexes[#indexes + 1] = args.sought_index
  texts = nil
end
if #indexes == 0 then
  indexes = {created}
end

-- Moves the smallest index to the front, and returns its size.
local function put_smallest_first()
  local smallest_size
  for position, index in ipairs(indexes) do
    local size = redis.call('ZCOUNT', index, args.last, args.first)
    if not smallest_size or size < smallest_size then
      smallest_size = size
      indexes[1], indexes[position] = index, indexes[1]
    end
  end
  return smallest_size
end

-- Whether the caller may see an export. Otherwise the search continues as if there were none: its answer would show that
-- there is one, and would hide an export of the caller with this text.
local function is_visible(id)
  if not args.connections then
    return true
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
    local ms = id and redis.call('ZSCORE', created, id)
    if ms and is_visible(id) then
      return {id, ms}
    end
  end
  return nil
end

local answer = {false}

-- Adds the fields of an export to the answer. Returns how many bytes they have. A packed record is the first field.
local function add_fields(id)
  local bytes = 0
  local values = redis.call('HMGET', args.prefix .. 'export:' .. id, unpack(args.fields))
  values[1] = values[1] or redis.call('GET', args.prefix .. 'past:' .. id)
  for _, value in ipairs(values) do
    bytes = bytes + #(value or '')
    answer[#answer + 1] = value
  end
  return bytes
end

local function answer_with(document)
  answer[1] = cjson.encode(document)
  return answer
end

local named = args.sought_texts and not args.after_ms and not args.state and named_export()
if named then
  if args.fields then
    add_fields(named[1])
  end
  return answer_with({found = {named}})
end

local size = put_smallest_first()

-- Returns how many exports match, or nil if counting them would take too long.
local function total_of()
  if #indexes > 1 or unsure or texts or args.state or (of_connections and indexes[1] ~= created) then
    return nil
  end
  local total = of_connections and 0 or size
  for _, index in ipairs(of_connections or {}) do
    total = total + redis.call('ZCOUNT', index, args.last, args.first)
  end
  return total
end

local total = total_of()
local limit = (unsure or texts) and args.unsure_limit or args.limit

local function is_in_all(id)
  for position = 2, #indexes do
    if not redis.call('ZSCORE', indexes[position], id) then
      return false
    end
  end
  for _, index in ipairs(of_connections or {}) do
    if redis.call('ZSCORE', index, id) then
      return true
    end
  end
  return not of_connections
end

-- Exports of one millisecond are sorted by id.
local function is_after(id, ms)
  return not args.after_ms or tonumber(ms) < args.after_ms or id < args.after_id
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

-- Reads a piece of the index. Returns the position from which the next page continues, or nil.
local function read_piece(piece)
  for position = 1, #piece, 2 do
    local entry = {piece[position], piece[position + 1]}
    if is_after(entry[1], entry[2]) then
      examined = examined + 1
      if is_in_all(entry[1]) and is_in_state(entry[1]) and may_be_sought(entry[1]) then
        if #found == limit then
          return found[limit]
        end
        found[#found + 1] = entry
        if args.fields then
          examined = examined + math.floor(add_fields(entry[1]) / args.large_bytes)
        end
      end
      if examined >= args.examine_max then
        return entry
      end
    end
  end
  return nil
end

local step = (#indexes > 1 or of_connections or texts or args.state) and 500 or limit + 1
local highest, offset, next_position = args.after_ms or args.first, 0, nil
repeat
  local piece = redis.call('ZREVRANGEBYSCORE', indexes[1], highest, args.last, 'WITHSCORES', 'LIMIT', offset, step)
  offset = offset + #piece / 2
  next_position = read_piece(piece)
until next_position or #piece == 0
return answer_with({found = #found > 0 and found or nil, next = next_position, unsure = unsure, total = total})
