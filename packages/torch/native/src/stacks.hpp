// What is told of a crash.
#pragma once

namespace miro {

// From now on a process that dies by a signal says where its threads are. Only on Linux with glibc.
void tellStacksOfCrashes();

}  // namespace miro
