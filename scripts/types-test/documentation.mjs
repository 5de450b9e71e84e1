/** What the options that a package exports are to an application: their words in an editor, and what they accept. */
import { readFileSync } from "node:fs";
import path from "node:path";

/**
 * The members of exported options, of every type whose name ends in Options, Hooks or Progress, of which an editor
 * would show no words, and those that may be left out but not be undefined: applications hand on what they were given.
 *
 * @param ts TypeScript, as a program calls it
 * @param home the installed package
 * @returns `entry: Type.member` of each
 */
export function faultyMembers(ts, home) {
  const { name, exports } = JSON.parse(readFileSync(path.join(home, "package.json"), "utf8"));
  const entries = Object.entries(exports).filter(([, { types } = {}]) => types !== undefined);
  const files = entries.map(([, { types }]) => path.join(home, types));
  const program = ts.createProgram(files, {
    strict: true,
    exactOptionalPropertyTypes: true,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    noEmit: true,
    skipLibCheck: true,
  });
  const checker = program.getTypeChecker();
  const undocumented = new Set();
  const refusing = new Set();
  // With exactOptionalPropertyTypes, what may be left out has a type of its own in place of undefined.
  const acceptsUndefined = (member) => {
    const type = checker.getTypeOfSymbol(member);
    return (type.isUnion() ? type.types : [type]).some(
      ({ flags, debugIntrinsicName }) =>
        flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown) ||
        (flags & ts.TypeFlags.Undefined && debugIntrinsicName !== "missing"),
    );
  };
  for (const [i, [entry]] of entries.entries()) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(files[i]));
    for (const exported of checker.getExportsOfModule(module)) {
      if (!/(Options|Hooks|Progress)$/.test(exported.name)) continue;
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
      if (!(symbol.flags & (ts.SymbolFlags.TypeAlias | ts.SymbolFlags.Interface))) continue;
      const type = checker.getDeclaredTypeOfSymbol(symbol);
      for (const member of checker.getPropertiesOfType(type)) {
        const called = `${path.posix.join(name, entry)}: ${exported.name}.${member.name}`;
        const words = ts.displayPartsToString(member.getDocumentationComment(checker)).trim();
        if (words === "") undocumented.add(called);
        const isOptional = member.flags & ts.SymbolFlags.Optional && !exported.name.endsWith("Progress");
        if (isOptional && !acceptsUndefined(member)) refusing.add(called);
      }
    }
  }
  return { undocumented: [...undocumented], refusing: [...refusing] };
}
