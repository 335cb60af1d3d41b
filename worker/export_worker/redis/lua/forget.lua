-- Removes ended exports whose retention has passed from every index. Their records expire by themselves. `indexes.lua` is
-- loaded before this file.
--
-- KEYS: ended, created, the index of each phase
-- ARGV[1]: JSON object
--   prefix               the namespace with its colon
--   until_ms, max        exports that ended by then are removed, at most so many
--   facets               the facets that have indexes
-- Answer: forgotten
local args = cjson.decode(ARGV[1])

-- Whether a place is one of ended exports. No other place has an expired export.
local function is_of_ended_exports(place)
  local phase = string.match(place, '[^:]*$')
  return phase == 'succeeded' or phase == 'failed' or phase == 'cancelled'
end

local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', args.until_ms, 'LIMIT', 0, args.max)
if #expired > 0 then
  for _, index in ipairs(KEYS) do
    redis.call('ZREM', index, unpack(expired))
  end
  -- A record that has expired does not say in which indexes it was. There are few of them.
  for _, facet in ipairs(args.facets) do
    for _, value in ipairs(values_of(args.prefix, facet)) do
      if facet ~= 'place' or is_of_ended_exports(value) then
        remove_from_index(args.prefix, facet, value, expired)
      end
    end
  end
  local digests = redis.call('HMGET', args.prefix .. 'metadata-of', unpack(expired))
  for position, id in ipairs(expired) do
    for digest in string.gmatch(digests[position] or '', '%S+') do
      redis.call('ZREM', args.prefix .. 'metadata:' .. digest, id)
    end
  end
  redis.call('HDEL', args.prefix .. 'metadata-of', unpack(expired))
end
return 'forgotten'
