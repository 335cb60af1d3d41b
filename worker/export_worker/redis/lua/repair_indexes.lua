-- Repairs the indexes by which exports are listed, in pieces. `indexes.lua`, which is loaded before this file with `past.lua`, describes
-- them. They need a repair after an update from a version without them, while such a version still runs, and after
-- Redis has lost keys. While the sizes of the indexes are right, a call costs some twenty reads.
--
-- A repair examines all exports, newest first, and adds those that are missing. Then it examines the indexes one by one
-- and removes what is wrong. Exports of one millisecond are examined together, so no export is skipped.
--
-- KEYS: created, index of the phase failed, repair
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   piece                how many exports to examine
--   kept_ms              how long a repair that is not continued is remembered
-- Answer: more when there is more to repair, else complete
local args = cjson.decode(ARGV[1])
local created, failed, repair = unpack(KEYS)
local prefix = args.prefix
local all_of = {connection = created, kind = created, requested_by = created, error = failed, place = created}
-- Stands for what a record does not have, so that the sizes of the indexes are right all the same: the record is damaged,
-- or an earlier version accepted it.
local unknown = '?'

local function is_right()
  for facet, all in pairs(all_of) do
    if not is_complete(prefix, facet, all) then
      return false
    end
  end
  return true
end

local function error_of(status)
  local valid, document = pcall(cjson.decode, status or '')
  local error = valid and type(document) == 'table' and document.error
  return type(error) == 'table' and type(error.code) == 'string' and error.code or unknown
end

-- Returns the phase in whose index an export is.
local function phase_of(id)
  for _, phase in ipairs({'queued', 'running', 'transferring', 'succeeded', 'failed', 'cancelled'}) do
    if redis.call('ZSCORE', prefix .. 'phase:' .. phase, id) then
      return phase
    end
  end
  return unknown
end

-- Returns the value of each facet of an export, and when the export was created; nil if there is no such export.
local function facets_of(id)
  local created_ms = redis.call('ZSCORE', created, id)
  if not created_ms then
    return {}, nil
  end
  local past = read_past(prefix, id)
  local record = past and {past.connection, past.kind, past.requested_by ~= '' and past.requested_by}
    or redis.call('HMGET', prefix .. 'export:' .. id, 'connection', 'kind', 'requested_by')
  local facets = {connection = record[1] or unknown, kind = record[2] or unknown, requested_by = record[3] or unknown}
  facets.place = place_of(facets.connection, phase_of(id))
  if redis.call('ZSCORE', failed, id) then
    local code = past and past.error or error_of(redis.call('HGET', prefix .. 'export:' .. id, 'status'))
    facets.error = code ~= '' and code or unknown
  end
  return facets, created_ms
end

local function add(id)
  local facets, created_ms = facets_of(id)
  for facet, value in pairs(facets) do
    add_to_index(prefix, facet, value, created_ms, id)
  end
end

local function remove_if_wrong(id, facet, value)
  if facets_of(id)[facet] ~= value then
    remove_from_index(prefix, facet, value, {id})
  end
end

-- Returns the next exports of a sorted set, and below which score the ones after them are; nil if there are no more.
local function next_piece(set, below)
  local found = redis.call('ZREVRANGEBYSCORE', set, below, '-inf', 'WITHSCORES', 'LIMIT', 0, args.piece)
  local ids = {}
  for position = 1, #found, 2 do
    ids[#ids + 1] = found[position]
  end
  if #ids < args.piece then
    return ids, nil
  end
  local last_ms = found[#found]
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, last_ms, last_ms)) do
    ids[#ids + 1] = id
  end
  return ids, '(' .. last_ms
end

-- Returns the facet and the value of the first index after one, in the order of their names; nil after the last one.
local function index_after(name)
  local first, first_facet, first_value = nil, nil, nil
  for facet in pairs(all_of) do
    for _, value in ipairs(values_of(prefix, facet)) do
      local other = facet .. ':' .. value
      if other > name and (not first or other < first) then
        first, first_facet, first_value = other, facet, value
      end
    end
  end
  return first_facet, first_value
end

-- Examines the next piece: of all exports if the repair has no index yet, else of this index.
local function examine(state)
  if not state.facet then
    local ids, below = next_piece(created, state.below)
    for _, id in ipairs(ids) do
      add(id)
    end
    return below
  end
  local ids, below = next_piece(prefix .. 'by-' .. state.facet .. ':' .. state.value, state.below)
  for _, id in ipairs(ids) do
    remove_if_wrong(id, state.facet, state.value)
  end
  return below
end

local function complete()
  redis.call('DEL', repair)
  return 'complete'
end

if is_right() then
  return complete()
end
local state = cjson.decode(redis.call('GET', repair) or '{"below": "+inf"}')
local below = examine(state)
if below then
  state.below = below
else
  local facet, value = index_after(state.facet and state.facet .. ':' .. state.value or '')
  state = {facet = facet, value = value, below = '+inf'}
end
if is_right() then
  return complete()
end
redis.call('SET', repair, cjson.encode(state), 'PX', args.kept_ms)
return 'more'
