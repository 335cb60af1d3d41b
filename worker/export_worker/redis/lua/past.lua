-- The packed records of ended exports: `past:ID` is a string with a header of lines and a packed body, which only Python
-- reads (see `contract/past.py`). Other scripts are joined to this file. The prefix is the namespace with its colon.

local past_fields = {'layout', 'phase', 'generation', 'step', 'number', 'saved', 'until_ms', 'connection', 'kind',
  'requested_by', 'error', 'identity'}
local past_pattern = '^' .. string.rep('([^\n]*)\n', #past_fields)

-- Returns the header of a packed record as a table of texts; nil if the value is none.
local function past_header(value)
  local lines = {string.match(value or '', past_pattern)}
  if lines[1] ~= '2' then
    return nil
  end
  local header = {}
  for position, name in ipairs(past_fields) do
    header[name] = lines[position]
  end
  return header
end

-- Returns the header of an ended export, and its whole value; nil if it has not ended, or in an earlier layout.
local function read_past(prefix, id)
  local value = redis.call('GET', prefix .. 'past:' .. id)
  return past_header(value), value
end

-- Returns the stored event of an export: a packed record, or the JSON text of an earlier version; false or nil if it is
-- not kept. The last end of an export is its record. Those before the last retry are kept as `event:ID.GENERATION`.
local function read_event(prefix, event_id)
  local id, generation = string.match(event_id, '^(.*)%.(%d+)$')
  local header, value = read_past(prefix, id or '')
  if header and header.generation == generation then
    return value
  end
  return redis.call('GET', prefix .. 'event:' .. event_id)
end

-- Returns the phase of an export; false or nil if there is no such export.
local function phase_of_export(prefix, id)
  return redis.call('HGET', prefix .. 'export:' .. id, 'phase') or (read_past(prefix, id) or {}).phase
end

-- Replaces the record of an export that has ended by a packed one. `fields` has texts or numbers by the names in
-- `past_fields`; `body` is packed by Python. Returns the whole value.
local function write_past(prefix, id, fields, body, kept_ms)
  local lines = {}
  for position, name in ipairs(past_fields) do
    local text = name == 'layout' and '2' or fields[name] or ''
    lines[position] = string.gsub(type(text) == 'number' and string.format('%.0f', text) or text, '%c', '?')
  end
  local value = table.concat(lines, '\n') .. '\n' .. body
  redis.call('SET', prefix .. 'past:' .. id, value, 'PX', kept_ms)
  redis.call('DEL', prefix .. 'export:' .. id, prefix .. 'timeline:' .. id, prefix .. 'stored:' .. id)
  return value
end
