/** What an editor shows of the options that a package exports. */
import { readFileSync } from "node:fs";
import path from "node:path";

/**
 * The members of exported options of which an editor would show no words: of every type whose name ends in Options,
 * Hooks or Progress.
 *
 * @param ts TypeScript, as a program calls it
 * @param home the installed package
 * @returns `entry: Type.member` of each
 */
export function undocumentedMembers(ts, home) {
  const { name, exports } = JSON.parse(readFileSync(path.join(home, "package.json"), "utf8"));
  const entries = Object.entries(exports).filter(([, { types } = {}]) => types !== undefined);
  const files = entries.map(([, { types }]) => path.join(home, types));
  const program = ts.createProgram(files, {
    strict: true,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    noEmit: true,
    skipLibCheck: true,
  });
  const checker = program.getTypeChecker();
  const missing = new Set();
  for (const [i, [entry]] of entries.entries()) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(files[i]));
    for (const exported of checker.getExportsOfModule(module)) {
      if (!/(Options|Hooks|Progress)$/.test(exported.name)) continue;
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
      if (!(symbol.flags & (ts.SymbolFlags.TypeAlias | ts.SymbolFlags.Interface))) continue;
      const type = checker.getDeclaredTypeOfSymbol(symbol);
      for (const member of checker.getPropertiesOfType(type)) {
        const words = ts.displayPartsToString(member.getDocumentationComment(checker)).trim();
        if (words === "") missing.add(`${path.posix.join(name, entry)}: ${exported.name}.${member.name}`);
      }
    }
  }
  return [...missing];
}
