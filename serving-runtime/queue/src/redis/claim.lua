local consumer, left, reversed = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local out = {}
for i = 1, #PRIORITIES do
  local p = PRIORITIES[reversed and (#PRIORITIES + 1 - i) or i]
  if left > 0 then
    local s = stream(p)
    local read = redis.pcall('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', left, 'STREAMS', s, '>')
    if type(read) == 'table' and read.err then
      if not string.find(read.err, 'NOGROUP', 1, true) then return read end
      group(s)
      read = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', left, 'STREAMS', s, '>')
    end
    if read then
      for _, e in ipairs(read[1][2]) do
        local id, payload = fields(e[2])
        out[#out + 1] = {p, e[1], id, payload, 1}
        left = left - 1
      end
    end
  end
end
return out
