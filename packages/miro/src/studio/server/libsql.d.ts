/** What is used of libsql, whose package exports no types. */
declare module "libsql" {
  namespace Database {
    interface Statement {
      run(...values: unknown[]): { changes: number; lastInsertRowid: number | bigint };
      get(...values: unknown[]): unknown;
      all(...values: unknown[]): unknown[];
    }
    interface Database {
      prepare(sql: string): Statement;
      exec(sql: string): void;
      readonly inTransaction: boolean;
      close(): void;
    }
  }
  const Database: new (path: string) => Database.Database;
  export = Database;
}
