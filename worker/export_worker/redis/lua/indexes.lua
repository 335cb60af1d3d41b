-- The indexes by which exports are listed, and the stream of their changes. Other scripts are joined to this file.
--
-- For each value of a facet (connection, kind, requested_by, error, place), `by-FACET:VALUE` is a sorted set of the
-- exports that have it, by creation. `by-FACET` has these values, each with the score 0. The prefix is the namespace with
-- its colon.
--
-- Every export has one connection, one kind and one requester, and every failed export has one error. So the indexes of a
-- facet are complete if their sizes add up to the number of these exports. A worker or producer of version 0.1 does not
-- write them.

local function values_of(prefix, facet)
  return redis.call('ZRANGE', prefix .. 'by-' .. facet, 0, -1)
end

local function add_to_index(prefix, facet, value, created_ms, id)
  local values = prefix .. 'by-' .. facet
  redis.call('ZADD', values .. ':' .. value, created_ms, id)
  redis.call('ZADD', values, 0, value)
end

local function remove_from_index(prefix, facet, value, ids)
  local values = prefix .. 'by-' .. facet
  redis.call('ZREM', values .. ':' .. value, unpack(ids))
  if redis.call('EXISTS', values .. ':' .. value) == 0 then
    redis.call('ZREM', values, value)
  end
end

-- The place of an export is its connection and its phase.
local function place_of(connection, phase)
  return connection .. ':' .. phase
end

-- Whether each phase has as many exports as the places with this phase. A worker or producer of an earlier version moves
-- an export to another phase, and not to another place.
local function are_places_complete(prefix)
  local sizes = {}
  for _, place in ipairs(values_of(prefix, 'place')) do
    local phase = string.match(place, '[^:]*$')
    sizes[phase] = (sizes[phase] or 0) + redis.call('ZCARD', prefix .. 'by-place:' .. place)
  end
  for _, phase in ipairs({'queued', 'running', 'transferring', 'succeeded', 'failed', 'cancelled'}) do
    if (sizes[phase] or 0) ~= redis.call('ZCARD', prefix .. 'phase:' .. phase) then
      return false
    end
  end
  return true
end

-- Whether the indexes of a facet have every export that they must have: those of the sorted set `all`.
local function is_complete(prefix, facet, all)
  if facet == 'place' then
    return are_places_complete(prefix)
  end
  local indexed = 0
  for _, value in ipairs(values_of(prefix, facet)) do
    indexed = indexed + redis.call('ZCARD', prefix .. 'by-' .. facet .. ':' .. value)
  end
  return indexed == redis.call('ZCARD', all)
end

-- How many changes are kept, and for how long: a client that was disconnected for longer reads its page again.
local changes_max = 5000
local changes_kept_ms = 3600000

-- Appends to the stream of changes that an export is in a phase now, and was in another one, or in none (nil). The user
-- of a producer may not have the right to do so; then it is left out.
local function add_change(prefix, id, connection, kind, phase, was)
  local changes = prefix .. 'changes'
  redis.pcall('XADD', changes, 'MAXLEN', '~', changes_max, '*', 'id', id, 'connection', connection, 'kind', kind,
    'phase', phase, 'was', was or '')
  redis.call('PEXPIRE', changes, changes_kept_ms)
end
