-- A command is an annotation that says what it is for, <revision>/<step>/<nonce>: it acts on no other revision, and `promote` at no other step.
local os = require("os")
local rollout = (obj.status or {}).rollout or {}
local step = "-"
if "COMMAND" == "promote" and rollout.stepIndex ~= nil then
  step = tostring(rollout.stepIndex)
end
local value = os.date("!%Y-%m-%dT%XZ")
if rollout.revision ~= nil then
  value = rollout.revision .. "/" .. step .. "/" .. value
end
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["ml.slipway.dev/COMMAND"] = value
return obj
