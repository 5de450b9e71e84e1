// Copies between host and device that run beside the computation: on streams of their own, from and to pinned memory.
// Those to a device have one stream and those from it another: a copy from the device waits for what it copies to be
// computed, and one stream would have the next copy to the device wait with it. Events: how far a device has come.
// Written against c10's interface of devices, so that it compiles without CUDA; there only pinned memory is missing.
#include "environment.hpp"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

namespace miro {
namespace {

enum class Direction { toDevice, fromDevice };

// The stream of a device that copies in one direction run on, one for the whole process.
c10::Stream copyStream(const c10::impl::VirtualGuardImpl& devices, c10::Device device, Direction direction) {
  static std::mutex mutex;
  static std::map<std::pair<c10::DeviceIndex, Direction>, c10::Stream> streams;
  const std::pair key{device.index(), direction};
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = streams.find(key);
  if (found != streams.end()) return found->second;
  return streams.emplace(key, devices.getStreamFromGlobalPool(device)).first->second;
}

// A device with its index, which "cuda" alone leaves open.
c10::Device indexed(const c10::impl::VirtualGuardImpl& devices, c10::Device device) {
  return device.has_index() ? device : devices.getDevice();
}

// pinned(bytes) -> a uint8 tensor in host memory that devices copy from and to without waiting
napi_value pinned(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"pinned(bytes)"};
  const int64_t bytes = intWithin(e, argv[0], "bytes", 0, int64_t{1} << 42);
  return makeInt(e, e.store(at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true))));
}

// copyBeside(pinned tensor, device) -> a copy there. What the current stream is given from now on comes after the copy,
// which itself waits for nothing.
napi_value copyBeside(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"copyBeside(tensor, device)"};
  const at::Tensor source = e.tensor(handleAt(e, argv, argc, 0));
  const c10::Device named = deviceOf(toString(e, argv[1], "device"));
  if (named.is_cpu() || named.is_meta()) {
    return makeInt(e, e.store(source.to(source.options().device(named), false, true)));
  }
  const c10::impl::VirtualGuardImpl devices(named.type());
  const c10::Device device = indexed(devices, named);
  const c10::Stream current = devices.getStream(device), beside = copyStream(devices, device, Direction::toDevice);
  at::Tensor copy;
  {
    c10::StreamGuard guard(beside);
    copy = source.to(source.options().device(device).pinned_memory(false), true, true);
  }
  c10::Event copied(device.type());
  copied.record(beside);
  copied.block(current);
  // Its memory belongs to the stream of the copies: it must not be used anew before the current one is done with it.
  devices.recordDataPtrOnStream(copy.storage().data_ptr(), current);
  return makeInt(e, e.store(std::move(copy)));
}

// Puts an event where a freed one was, if there is such a place: a run of many steps has few at a time.
napi_value storeEvent(Environment& e, std::shared_ptr<c10::Event> event) {
  const auto place = std::find(e.events.begin(), e.events.end(), nullptr);
  const auto id = static_cast<int32_t>(place - e.events.begin());
  if (place == e.events.end()) e.events.push_back(std::move(event));
  else *place = std::move(event);
  return makeInt(e, id);
}

// copyOut(sources on one device, pinned targets) -> id of an event: the copy is done. The copy comes after what the
// current stream has been given so far.
napi_value copyOut(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"copyOut(sources, targets)"};
  const auto sources = toHandles(e, argv[0], "sources"), targets = toHandles(e, argv[1], "targets");
  if (sources.size() != targets.size() || sources.empty())
    throw UsageError{"copyOut: expected as many targets as sources"};
  at::NoGradGuard noGrad;
  const c10::Device device = e.tensor(sources[0]).device();
  if (device.is_cpu()) throw UsageError{"copyOut: the sources lie on the CPU already"};
  const c10::impl::VirtualGuardImpl devices(device.type());
  const c10::Stream current = devices.getStream(device), beside = copyStream(devices, device, Direction::fromDevice);
  c10::Event ready(device.type());
  ready.record(current);
  ready.block(beside);
  auto done = std::make_shared<c10::Event>(device.type());
  {
    c10::StreamGuard guard(beside);
    for (size_t i = 0; i < sources.size(); ++i) {
      const at::Tensor source = e.tensor(sources[i]).detach();
      if (source.device() != device) throw UsageError{"copyOut: the sources lie on two devices"};
      e.tensor(targets[i]).copy_(source, true);
      devices.recordDataPtrOnStream(source.storage().data_ptr(), beside);  // it may be freed before the copy is done
    }
    done->record(beside);
  }
  return storeEvent(e, std::move(done));
}

// eventRecord(tensor) -> id of an event: all is done that the current stream of the tensor's device has been given
napi_value eventRecord(Environment& e, napi_value* argv, size_t argc) {
  const c10::Device device = e.tensor(handleAt(e, argv, argc, 0)).device();
  if (device.is_cpu()) throw UsageError{"eventRecord: what the CPU is given is done at once"};
  auto event = std::make_shared<c10::Event>(device.type());
  event->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  return storeEvent(e, std::move(event));
}

c10::Event& eventAt(Environment& e, napi_value* argv, size_t argc) {
  const int64_t id = argc > 0 ? toInt(e, argv[0], "event") : -1;
  if (id < 0 || static_cast<size_t>(id) >= e.events.size() || !e.events[id]) throw UsageError{"this event was freed"};
  return *e.events[id];
}
// eventIsDone(id): without waiting
napi_value eventIsDone(Environment& e, napi_value* argv, size_t argc) {
  return makeBool(e, eventAt(e, argv, argc).query());
}
// eventWait(id): on the host
napi_value eventWait(Environment& e, napi_value* argv, size_t argc) {
  eventAt(e, argv, argc).synchronize();
  return makeUndefined(e);
}
// eventBefore(id, tensor on its device): what the current stream is given from now on comes after the event
napi_value eventBefore(Environment& e, napi_value* argv, size_t argc) {
  c10::Event& event = eventAt(e, argv, argc);
  const c10::Device device = e.tensor(handleAt(e, argv, argc, 1)).device();
  event.block(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  return makeUndefined(e);
}
napi_value eventFree(Environment& e, napi_value* argv, size_t argc) {
  eventAt(e, argv, argc);
  e.events[toInt(e, argv[0], "event")].reset();
  return makeUndefined(e);
}

}  // namespace

const std::vector<Binding> kStreamBindings = {
    {"pinned", pinned}, {"copyBeside", copyBeside}, {"copyOut", copyOut}, {"eventRecord", eventRecord},
    {"eventIsDone", eventIsDone}, {"eventWait", eventWait}, {"eventBefore", eventBefore}, {"eventFree", eventFree}};

}  // namespace miro
