-- Moves exports of an earlier version from its sorted sets to the rows of `indexes.lua`, in pieces. It is needed after an
-- update, and while a process of such a version still runs. `indexes.lua` is loaded before this file.
--
-- First the exports get numbers, the newest first, each below all others. One that was accepted after the update, by an
-- earlier version, gets the next number. Then the log gets the ends, in their order. At last the sorted sets are removed.
--
-- KEYS: created, ended
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   piece                how many exports or members to move
-- Answer: more when there is more to move, else complete
local args = cjson.decode(ARGV[1])
local created, ended = unpack(KEYS)
local prefix = args.prefix
local facets = {'connection', 'kind', 'requested_by', 'error', 'place'}

local function error_of(status)
  local valid, document = pcall(cjson.decode, status or '')
  local error = valid and type(document) == 'table' and document.error
  return type(error) == 'table' and type(error.code) == 'string' and error.code or '?'
end

local function metadata_of(request)
  local valid, document = pcall(cjson.decode, request or '')
  return valid and type(document) == 'table' and type(document.metadata) == 'table' and document.metadata or nil
end

local function is_older(created_ms)
  local lowest_ms = tonumber(redis.call('HGET', prefix .. 'numbers', 'lowest_ms') or '')
  return not lowest_ms or created_ms <= lowest_ms
end

local function give_number(id, created_ms)
  local export = prefix .. 'export:' .. id
  local record = redis.call('HMGET', export, 'connection', 'kind', 'requested_by', 'phase', 'number', 'request')
  local phase = phase_codes[record[4] or ''] and record[4]
  if phase and not record[5] and string.match(id, '^%x+$') and #id == 32 then
    local number = add_export(prefix, id, created_ms, {
      connection = record[1] or '?', kind = record[2] or '?', requested_by = record[3] or '?', phase = phase,
      error = phase == 'failed' and error_of(redis.call('HGET', export, 'status')) or nil,
    }, is_older(created_ms))
    redis.call('HSET', export, 'number', full(number))
    add_metadata(prefix, number, metadata_of(record[6]))
  end
  redis.call('ZREM', created, id)
  for each in pairs(phase_codes) do
    redis.call('ZREM', prefix .. 'phase:' .. each, id)
  end
  redis.call('ZREM', prefix .. 'by-place:' .. (record[1] or '?') .. ':' .. (phase or '?'), id)
end

local function give_numbers()
  local found = redis.call('ZREVRANGE', created, 0, args.piece - 1, 'WITHSCORES')
  for position = 1, #found, 2 do
    give_number(found[position], tonumber(found[position + 1]))
  end
  return #found
end

local function log_ends()
  local found = redis.call('ZRANGE', ended, 0, args.piece - 1, 'WITHSCORES')
  for position = 1, #found, 2 do
    local id = found[position]
    local record = redis.call('HMGET', prefix .. 'export:' .. id, 'number', 'state', 'phase', 'status')
    local number = tonumber(record[1] or '')
    if number and record[3] then
      -- A worker of an earlier version has ended an export that has a number already.
      move_export(prefix, number, record[3], record[3] == 'failed' and error_of(record[4]) or nil)
      log_end(prefix, number, tonumber(found[position + 1]),
        tonumber(string.match(record[2] or '', '"generation":%s*(%d+)') or '1'))
    end
    redis.call('ZREM', ended, id)
  end
  return #found
end

-- A worker of an earlier version has changed the phase of an export that has a number already.
local function move_phases()
  local moved = 0
  for phase in pairs(phase_codes) do
    for _, id in ipairs(redis.call('ZRANGE', prefix .. 'phase:' .. phase, 0, args.piece - 1)) do
      local record = redis.call('HMGET', prefix .. 'export:' .. id, 'number', 'phase')
      if record[1] and phase_codes[record[2] or ''] and record[2] ~= 'failed' then
        move_export(prefix, tonumber(record[1]), record[2], nil)
      end
      redis.call('ZREM', prefix .. 'phase:' .. phase, id)
      moved = moved + 1
    end
  end
  return moved
end

local function remove_members(set)
  return #redis.call('ZPOPMIN', set, args.piece)
end

local function remove_facets()
  for _, facet in ipairs(facets) do
    local values = prefix .. 'by-' .. facet
    local value = redis.call('ZRANGE', values, 0, 0)[1]
    if value then
      if remove_members(values .. ':' .. value) == 0 then
        redis.call('ZREM', values, value)
      end
      return 1
    end
  end
  return 0
end

local function remove_metadata()
  local found = redis.call('HRANDFIELD', prefix .. 'metadata-of', args.piece)
  for _, id in ipairs(found) do
    for digest in string.gmatch(redis.call('HGET', prefix .. 'metadata-of', id) or '', '%S+') do
      redis.call('DEL', prefix .. 'metadata:' .. digest)
    end
    redis.call('HDEL', prefix .. 'metadata-of', id)
  end
  return #found
end

local function remove_events()
  return remove_members(prefix .. 'events-at')
end

for _, move in ipairs({give_numbers, log_ends, move_phases, remove_facets, remove_metadata, remove_events}) do
  if move() > 0 then
    return 'more'
  end
end
return 'complete'
