/** The public surface of `miro-t2i`. */
export { InvalidInputError, MiroError } from "./errors.js";
export { LinearSchedule, type ScheduleOptions } from "./flow/schedule.js";
