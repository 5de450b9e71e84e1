/** What commands know beside the general system: scorers, data and tasks that come in by its extension points. */
import "../emoji/register.js";
