-- A command is an annotation with a value that was not there before.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["ml.slipway.dev/COMMAND"] = os.date("!%Y-%m-%dT%XZ")
return obj
